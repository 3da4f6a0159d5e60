"""Values that are known while importing: constants, and small integer tensors over the model's symbolic sizes.

A known value is a numpy array: of the tensor's own dtype when all its elements are numbers, else of dtype object,
each element a Python int or an int64 expression over the symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.expr import Const, Expr, Ranges, simplify
from polycomp.te import Dim

Array = np.ndarray[Any, Any]

MAX_KNOWN = 4096
"""Larger tensors are not evaluated while importing: what a shape is computed from is small."""


def is_symbolic(array: Array) -> bool:
    """Whether an element depends on a symbolic size."""
    return bool(array.dtype == object)


def simplify_dim(dim: Dim, ranges: Ranges) -> Dim:
    """``dim`` in normal form; an int when it is constant."""
    if not isinstance(dim, Expr):
        return int(dim)
    simple = simplify(dim, ranges)
    return int(simple.value) if isinstance(simple, Const) else simple


def from_dims(dims: Sequence[Dim], shape: tuple[int, ...], dtype: DType, ranges: Ranges) -> Array:
    """A known array of ``shape`` with the elements ``dims``, symbolic only when it must be."""
    elements = [simplify_dim(d, ranges) for d in dims]
    if all(isinstance(e, int) for e in elements):
        return np.array(elements, np.int64).astype(dtype.numpy).reshape(shape)
    array = np.empty(len(elements), object)
    for position, element in enumerate(elements):
        array[position] = element
    return array.reshape(shape)


def to_dims(array: Array) -> list[Dim]:
    """The elements in row-major order as ints and expressions."""
    return [e if isinstance(e, Expr) else int(e) for e in array.reshape(-1)]


def elementwise(
    function: Callable[..., Dim | None], arrays: Sequence[Array], dtype: DType, ranges: Ranges
) -> Array | None:
    """``function`` on the broadcast elements of ``arrays``; None when it gives None for an element."""
    broadcast = np.broadcast_arrays(*arrays)
    columns = [to_dims(a) for a in broadcast]
    results: list[Dim] = []
    for elements in zip(*columns, strict=True):
        result = function(*elements)
        if result is None:
            return None
        results.append(result)
    return from_dims(results, broadcast[0].shape, dtype, ranges)
