"""The memory plan never lets two tensors that are alive together share bytes."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from polycomp.driver.memory import Block, Lifetime, align, plan_memory
from polycomp.driver.work import known
from polycomp.expr import Expr, Var, simplify, substitute, wrap
from polycomp.target import ALIGNMENT
from polycomp.te import Dim

N = Var("n")


def value(dim: Dim, n: int) -> int:
    return int(simplify(substitute(wrap(dim), {N: wrap(n)})).value)  # type: ignore[attr-defined]


def block(name: str, size: Dim, first: int, last: int) -> Block:
    return Block(name, size, (Lifetime(name, size, first, last),))


@st.composite
def blocks(draw: st.DrawFn, symbolic: bool) -> list[Block]:
    """Blocks of one to three tensors side by side, of which the last one may end anywhere."""
    made = []
    for position in range(draw(st.integers(0, 12))):
        tensors: list[Lifetime] = []
        end: Dim = 0
        count = draw(st.sampled_from([1, 1, 2, 3]))
        for part in range(count):
            size: Dim = draw(st.integers(0, 300)) if part == count - 1 else 64 * draw(st.integers(0, 4))
            if symbolic and draw(st.booleans()):
                size = N * draw(st.sampled_from([64, 128])) + (4 if part == count - 1 else 0)
            first = draw(st.integers(0, 8))
            tensors.append(Lifetime(f"t{position}.{part}", size, first, first + draw(st.integers(0, 4)), end))
            end = known(end + size)
        made.append(Block(f"t{position}", end, tuple(tensors)))
    return made


def check(blocks: list[Block], n: int) -> None:
    plan = plan_memory(blocks, {N: (1, 512)})
    total = value(plan.bytes, n)
    places = []
    for b in blocks:
        assert value(plan.offsets[b.name], n) % ALIGNMENT == 0
        for t in b.tensors:
            begin = value(plan.offsets[b.name] + t.offset, n)
            places.append((t, begin, begin + value(t.bytes, n)))
            assert begin + value(t.bytes, n) <= total
    for (a, a_begin, a_end), (b, b_begin, b_end) in itertools.combinations(places, 2):
        assert a_end <= b_begin or b_end <= a_begin or not a.overlaps(b)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(blocks(symbolic=False))
def test_known_sizes(found: list[Block]) -> None:
    check(found, 1)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(blocks(symbolic=True), st.sampled_from([1, 3, 512]))
def test_symbolic_sizes(found: list[Block], n: int) -> None:
    check(found, n)


def test_a_chain_needs_only_its_two_largest_neighbours() -> None:
    chain = [block(f"t{i}", size, i, i + 1) for i, size in enumerate([640, 1280, 128, 640])]
    assert plan_memory(chain, {}).bytes == 640 + 1280


def test_a_symbolic_chain_takes_turns_on_two_slots() -> None:
    chain = [block(f"t{i}", N * 64, i, i + 1) for i in range(6)]
    plan = plan_memory(chain, {N: (1, None)})
    assert isinstance(plan.bytes, Expr)
    assert value(plan.bytes, 10) == 2 * 640


def test_a_block_that_grows_leaves_the_rest_of_its_bytes_to_others() -> None:
    growing = Block("whole", 640, (Lifetime("early", 128, 0, 9), Lifetime("late", 512, 8, 9, 128)))
    assert plan_memory([growing, block("between", 512, 2, 7)], {}).bytes == 640


def test_align() -> None:
    assert [align(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
