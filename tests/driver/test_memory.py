"""The memory plan never lets two tensors that are alive together share bytes."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from polycomp.driver.memory import ALIGNMENT, Lifetime, align, plan_memory
from polycomp.expr import Expr, Var, simplify, substitute, wrap
from polycomp.te import Dim

N = Var("n")


def value(dim: Dim, n: int) -> int:
    return int(simplify(substitute(wrap(dim), {N: wrap(n)})).value)  # type: ignore[attr-defined]


@st.composite
def lifetimes(draw: st.DrawFn, symbolic: bool) -> list[Lifetime]:
    made = []
    for position in range(draw(st.integers(0, 12))):
        first = draw(st.integers(0, 8))
        size: Dim = draw(st.integers(0, 300))
        if symbolic and draw(st.booleans()):
            size = N * draw(st.sampled_from([4, 16, 64])) + draw(st.sampled_from([0, 4]))
        made.append(Lifetime(f"t{position}", size, first, first + draw(st.integers(0, 4))))
    return made


def check(tensors: list[Lifetime], n: int) -> None:
    plan = plan_memory(tensors, {N: (1, 512)})
    total = value(plan.bytes, n)
    places = {t.name: (value(plan.offsets[t.name], n), value(t.bytes, n)) for t in tensors}
    for begin, size in places.values():
        assert begin % ALIGNMENT == 0
        assert begin + size <= total
    for a, b in itertools.combinations(tensors, 2):
        (a_begin, a_size), (b_begin, b_size) = places[a.name], places[b.name]
        apart = a_begin + a_size <= b_begin or b_begin + b_size <= a_begin
        assert apart or not a.overlaps(b)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(lifetimes(symbolic=False))
def test_known_sizes(tensors: list[Lifetime]) -> None:
    check(tensors, 1)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(lifetimes(symbolic=True), st.sampled_from([1, 3, 512]))
def test_symbolic_sizes(tensors: list[Lifetime], n: int) -> None:
    check(tensors, n)


def test_a_chain_needs_only_its_two_largest_neighbours() -> None:
    chain = [Lifetime(f"t{i}", size, i, i + 1) for i, size in enumerate([640, 1280, 128, 640])]
    assert plan_memory(chain, {}).bytes == 640 + 1280


def test_a_symbolic_chain_takes_turns_on_two_slots() -> None:
    chain = [Lifetime(f"t{i}", N * 64, i, i + 1) for i in range(6)]
    plan = plan_memory(chain, {N: (1, None)})
    assert isinstance(plan.bytes, Expr)
    assert value(plan.bytes, 10) == 2 * 640


def test_align() -> None:
    assert [align(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
