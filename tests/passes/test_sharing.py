"""Concatenations, slices and splits that need no kernel, and those that are better computed while others read."""

from __future__ import annotations

import pytest
from graph_builder import Make, check

from polycomp.graph import Graph
from polycomp.passes.fuse import fuse


def _groups(graph: Graph) -> list[str]:
    """The groups; those without a kernel in brackets."""
    texts = [("+".join(n.op for n in g.nodes), g.shares) for g in check(graph, fuse).groups]
    return sorted(f"[{text}]" if shares else text for text, shares in texts)


def _softmax(m: Make, *shape: int) -> str:
    return str(m.op("Softmax", m.input(*shape), axis=len(shape) - 1))


def test_parts_that_kernels_write() -> None:
    m = Make()
    y = m.op("Concat", _softmax(m, 2, 16), _softmax(m, 3, 16), axis=0)
    assert _groups(m.graph(y)) == ["Softmax", "Softmax", "[Concat]"]


def test_parts_with_other_readers_and_a_result_that_is_joined_again() -> None:
    m = Make()
    a, b = _softmax(m, 1, 2, 16), _softmax(m, 1, 2, 16)
    ab = m.op("Concat", a, b, axis=1)
    y = m.op("Concat", ab, m.op("Softmax", ab, axis=2), axis=1)
    assert _groups(m.graph(y, m.op("Neg", a))) == ["Neg", "Softmax", "Softmax", "Softmax", "[Concat]", "[Concat]"]


@pytest.mark.parametrize(("shape", "axis"), [((2, 16), 1), ((2, 15), 0)])
def test_parts_that_are_scattered_or_not_aligned(shape: tuple[int, int], axis: int) -> None:
    m = Make()
    y = m.op("Concat", _softmax(m, *shape), _softmax(m, *shape), axis=axis)
    assert _groups(m.graph(y)) == ["Concat", "Softmax", "Softmax"]


def test_light_parts_are_computed_by_the_concatenation() -> None:
    m = Make()
    y = m.op("Concat", m.op("Neg", m.input(2, 16)), m.op("Relu", m.input(2, 16)), axis=0)
    assert _groups(m.graph(y)) == ["Neg+Relu+Concat"]


def test_a_small_part_is_copied() -> None:
    m = Make()
    y = m.op("Concat", m.input(1, 16), _softmax(m, 3, 16), axis=0)
    assert _groups(m.graph(y)) == ["Softmax", "[Concat]"]


def test_a_small_part_is_not_copied_where_the_reader_can_do_it() -> None:
    m = Make()
    y = m.op("Concat", m.input(1, 16), _softmax(m, 3, 16), axis=0)
    assert _groups(m.graph(m.op("Neg", y))) == ["Concat+Neg", "Softmax"]


def test_a_large_part_is_not_copied() -> None:
    m = Make()
    y = m.op("Concat", m.input(3, 16), _softmax(m, 1, 16), axis=0)
    assert _groups(m.graph(y)) == ["Concat", "Softmax"]


def test_a_value_has_its_place_in_one_result_only() -> None:
    m = Make()
    a = _softmax(m, 4, 16)
    first, second = (m.op("Concat", a, m.input(1, 16), axis=0) for _ in range(2))
    assert _groups(m.graph(first, second)) == ["Concat", "Softmax", "[Concat]"]


def test_pieces_of_what_is_in_memory() -> None:
    m = Make()
    x = m.input(4, 8)
    a, b = m.op("Split", x, n_outputs=2, axis=0, sizes=(1, 3))
    c = m.op("Slice", b, starts=(1, 0), steps=(1, 1), sizes=(1, 8))
    assert _groups(m.graph(m.op("Add", a, c))) == ["Add", "[Slice]", "[Split]"]


def test_pieces_of_what_is_computed_while_read() -> None:
    m = Make()
    x = m.op("Neg", m.input(4, 8))
    assert _groups(m.graph(m.op("Relu", m.op("Slice", x, starts=(1, 0), steps=(1, 1), sizes=(2, 8))))) == [
        "Neg+Slice+Relu"
    ]


def test_pieces_that_are_the_callers() -> None:
    m = Make()
    y = m.op("Slice", m.input(4, 8), starts=(1, 0), steps=(1, 1), sizes=(2, 8))
    assert _groups(m.graph(y)) == ["Slice"]


def test_scattered_pieces() -> None:
    m = Make()
    y = m.op("Slice", m.input(4, 8), starts=(0, 2), steps=(1, 1), sizes=(4, 3))
    assert _groups(m.graph(m.op("Softmax", y, axis=1))) == ["Slice", "Softmax"]
