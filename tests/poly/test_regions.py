"""Bounding boxes of accesses."""

from __future__ import annotations

import itertools
import random

from test_linear_forms import value

from polycomp.expr import Expr, Interval, Var, free_vars, maximum, minimum, select, wrap
from polycomp.poly.bounds import required_region
from polycomp.te import placeholder

IO, JO, II, JI, K, N = (Var(n) for n in ("io", "jo", "ii", "ji", "k", "N"))
OUTER: dict[Var, Interval] = {IO: (0, 9), JO: (0, 9)}


def text(indices: list[tuple[Expr, ...]], inner: dict[Var, int | Expr]) -> list[str]:
    boxes = required_region(indices, inner, OUTER)
    return ["none" if box is None else f"{box[0]} + {box[1]}" for box in boxes]


def test_tiles() -> None:
    assert text([(IO * 6 + II, JO * 16 + JI)], {II: 6, JI: 16}) == ["(io * 6) + 6", "(jo * 16) + 16"]


def test_strided_windows() -> None:
    assert text([((IO * 4 + II) * 2 + K - 1,)], {II: 4, K: 3}) == ["((io * 8) - 1) + 9"]


def test_stencils_are_one_box() -> None:
    index = IO * 4 + II
    assert text([(index - 1,), (index + 1,), (index,)], {II: 4}) == ["((io * 4) - 1) + 6"]


def test_reversed_indices() -> None:
    assert text([(99 - IO * 4 - II,)], {II: 4}) == ["((0 - (io * 4)) + 96) + 4"]


def test_blocked_layouts() -> None:
    index = IO * 16 + II
    assert text([(index // 16, index % 16)], {II: 16}) == ["io + 1", "0 + 16"]
    assert text([(index // 8, index % 8)], {II: 16}) == ["(io * 2) + 2", "0 + 8"]


def test_clamped_indices() -> None:
    index = minimum(maximum(IO * 4 + II - 1, 0), 38)
    ((origin, extent),) = (box for box in required_region([(index,)], {II: 4}, OUTER) if box is not None)
    assert extent == 4
    assert value(origin, {IO: 0}) == 0
    assert value(origin, {IO: 2}) == 7


def test_symbolic_extents() -> None:
    assert text([(IO, K * 2)], {K: N}) == ["io + 1", "0 + ((N * 2) - 1)"]


def test_the_last_part_of_a_split_counts_as_a_whole_one() -> None:
    assert text([(IO * 6 + II,)], {II: minimum(N - IO * 6, 6)}) == ["(io * 6) + 6"]


def test_triangular_loops() -> None:
    assert text([(IO * 8 + II + K,)], {II: 4, K: II + 1}) == ["(io * 8) + 7"]


def test_data_dependent_indices_have_no_box() -> None:
    at = placeholder((10,), "int64", "at")
    assert text([(at[IO], IO)], {II: 4}) == ["none", "io + 1"]


def test_accesses_that_drift_apart_use_isl() -> None:
    ((origin, extent),) = (b for b in required_region([(IO * 6 + II,), (IO * 5 + II,)], {II: 6}, OUTER) if b)
    assert extent == 15
    assert free_vars(origin) == {IO}


def test_boxes_hold_all_elements() -> None:
    rng = random.Random(11)
    extents = {II: 3, K: 2}
    small: dict[Var, Interval] = {IO: (0, 3), JO: (0, 2)}
    for _ in range(200):
        indices = [(_random_index(rng, 2),) for _ in range(rng.randint(1, 3))]
        (box,) = required_region(indices, dict(extents), small)
        assert box is not None
        origin, extent = box
        assert not free_vars(origin) & extents.keys()
        for io, jo, ii, k in itertools.product(range(4), range(3), range(3), range(2)):
            at: dict[Expr, int] = {IO: io, JO: jo, II: ii, K: k}
            low = value(origin, at)
            for (index,) in indices:
                assert low <= value(index, at) < low + value(wrap(extent), at), f"{index} at {at}"


def _random_index(rng: random.Random, depth: int) -> Expr:
    if depth == 0:
        return rng.choice([IO * 3 + II, JO, K, IO, II, JO * 2 + K])
    a, b = _random_index(rng, depth - 1), _random_index(rng, depth - 1)
    factor = rng.randint(2, 4)
    return rng.choice(
        [a + b, a - b, a * factor, a // factor, a % factor, minimum(a, b), maximum(a, b), select(a < b, a, b), a + 1]
    )
