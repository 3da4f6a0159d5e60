"""Contiguous pieces of tensors, against the addresses of numpy's views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import make_call

from polycomp.dtypes import DType
from polycomp.expr import Var
from polycomp.graph import TensorType
from polycomp.ops.pieces import is_aligned, pieces

Array = np.ndarray[Any, Any]
F = DType.FLOAT32
deterministic = settings(derandomize=True, max_examples=150, deadline=None)


def place(whole: Array, piece: Array) -> int | None:
    """The byte of ``whole`` where ``piece``, a view of it, begins; None when it is scattered."""
    address = piece.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return int(address) if piece.flags.c_contiguous else None


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], list[range]]:
    shape = tuple(draw(st.lists(st.sampled_from([1, 1, 2, 3, 5]), min_size=1, max_size=4)))
    taken = []
    for n in shape:
        start = draw(st.integers(0, n - 1))
        whole = range(n)
        taken.append(
            draw(st.sampled_from([whole, whole, whole[start:], whole[start : start + 1], whole[::2], whole[::-1]]))
        )
    return shape, taken


@deterministic
@given(cuts())
def test_slices(drawn: tuple[tuple[int, ...], list[range]]) -> None:
    shape, taken = drawn
    x = np.empty(shape, np.float32)
    steps = tuple(r.step for r in taken)
    attributes = {"starts": tuple(r.start for r in taken), "steps": steps, "sizes": tuple(map(len, taken))}
    view = x[tuple(slice(r.start, r.stop if r.stop >= 0 else None, r.step) for r in taken)]
    found = pieces(make_call("Slice", [TensorType(F, shape)], attributes))
    wanted = place(x, view)
    assert found == (None if wanted is None else (wanted,))


@deterministic
@given(
    st.lists(st.sampled_from([1, 1, 2, 3]), max_size=3), st.lists(st.integers(1, 4), min_size=2, max_size=3), st.data()
)
def test_splits_and_concatenations(others: list[int], sizes: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(others)))
    types = [TensorType(F, (*others[:axis], n, *others[axis:])) for n in sizes]
    whole = np.empty((*others[:axis], sum(sizes), *others[axis:]), np.float32)
    views = np.split(whole, np.cumsum(sizes[:-1]), axis)
    wanted = [place(whole, v) for v in views]
    expected = None if any(n != 1 for n in others[:axis]) else tuple(wanted)
    attributes = {"axis": axis, "sizes": tuple(sizes)}
    assert pieces(make_call("Split", [TensorType(F, whole.shape)], attributes, len(sizes))) == expected
    assert pieces(make_call("Concat", types, {"axis": axis - whole.ndim})) == expected


def test_an_operator_that_moves() -> None:
    assert pieces(make_call("Transpose", [TensorType(F, (1, 4))], {"perm": (1, 0)})) is None


@pytest.mark.parametrize(("row", "aligned"), [(16, True), (24, False)])
def test_sizes_that_are_bound_later(row: int, aligned: bool) -> None:
    n, m = Var("n"), Var("m")
    types = [TensorType(F, (n, row)), TensorType(F, (m, row))]
    found = pieces(make_call("Concat", types, {"axis": 0}))
    assert found is not None
    assert found[0] == 0
    assert is_aligned(found[1]) is aligned
    assert pieces(make_call("Concat", types[:1] * 2, {"axis": 1})) is None
