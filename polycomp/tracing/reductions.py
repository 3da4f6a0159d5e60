"""numpy's reductions as canonical operators, with numpy's result dtypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.tracing.operands import as_tensor, cast, result_type
from polycomp.tracing.shaping import axis_number, axis_numbers, broadcast_to, reshape
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor

Axis = int | Sequence[int] | None


def reduce(op: str, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """A canonical reduction; over no dimensions at all, ``x`` itself."""
    axes = axis_numbers(axis, x.ndim)
    return emit(op, x, axes=axes, keepdims=bool(keepdims)) if axes else x


def count(x: Tensor, axis: Axis) -> Any:
    """How many elements are reduced: an int, or an open size."""
    return math.prod(x.shape[a] for a in axis_numbers(axis, x.ndim))


def _accumulated(x: Tensor, dtype: Any) -> Tensor:
    """numpy sums narrow integers in 64 bits."""
    if dtype is not None:
        return cast(x, dtype)
    if x.kind.is_float:
        return x
    return cast(x, np.uint64 if x.kind.is_integer and not x.kind.is_signed else np.int64)


def sum(x: Tensor, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """numpy.sum: narrow integers and bools are summed in 64 bits; float16 in float32."""
    return reduce("ReduceSum", _accumulated(x, dtype), axis, keepdims)


def prod(x: Tensor, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """numpy.prod."""
    return reduce("ReduceProd", _accumulated(x, dtype), axis, keepdims)


def mean(x: Tensor, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """numpy.mean: of integers and bools in float64; float16 in float32."""
    wanted = dtype or (x.dtype if x.kind.is_float else np.float64)
    return reduce("ReduceMean", cast(x, wanted), axis, keepdims)


def var(x: Tensor, axis: Axis = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Tensor:
    """numpy.var, in two passes."""
    wanted = np.dtype(dtype or (x.dtype if x.kind.is_float else np.float64))
    data = cast(x, np.float32 if wanted == np.float16 else wanted)
    centred = emit("Sub", data, mean(data, axis, keepdims=True))
    squares = emit("Mul", centred, centred)
    if ddof == 0:
        return cast(mean(squares, axis, keepdims=keepdims), wanted)
    return cast(call_ufunc(np.divide, sum(squares, axis, keepdims=keepdims), count(x, axis) - ddof), wanted)


def std(x: Tensor, axis: Axis = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Tensor:
    """numpy.std."""
    wanted = np.dtype(dtype or (x.dtype if x.kind.is_float else np.float64))
    wide = np.float32 if wanted == np.float16 else wanted
    return cast(emit("Sqrt", var(x, axis, wide, ddof, keepdims)), wanted)


def _extreme(op: str, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    _check_not_empty(x, axis, "an extreme")
    return reduce(op, x, axis, keepdims)


def _check_not_empty(x: Tensor, axis: Axis, what: str) -> None:
    if 0 in [x.type.shape[a] for a in axis_numbers(axis, x.ndim)]:
        raise ShapeError(f"{where()}: an empty dimension has no {what.removeprefix('an ')} (the operand is {x.type})")


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """numpy.max: NaN if any is NaN."""
    return _extreme("ReduceMax", x, axis, keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """numpy.min: NaN if any is NaN."""
    return _extreme("ReduceMin", x, axis, keepdims)


def ptp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element less the smallest."""
    return emit("Sub", max(x, axis, keepdims), min(x, axis, keepdims))


def all(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """numpy.all."""
    return reduce("ReduceMin", cast(x, bool), axis, keepdims)


def any(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """numpy.any."""
    return reduce("ReduceMax", cast(x, bool), axis, keepdims)


def count_nonzero(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """numpy.count_nonzero, as int64."""
    return sum(cast(x, bool), axis, keepdims=keepdims)


def _arg(op: str, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    if x.kind is DType.BOOL:
        x = cast(x, np.uint8)
    if axis is not None:
        number = axis_number(axis, x.ndim)
        _check_not_empty(x, number, "extreme")
        return emit(op, x, axis=number, keepdims=bool(keepdims), select_last_index=0)
    flat = emit(op, reshape(x, -1), axis=0, keepdims=False, select_last_index=0)
    return reshape(flat, (1,) * x.ndim) if keepdims else flat


def argmax(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The first position of the largest element, as int64; of the flattened tensor when ``axis`` is None."""
    return _arg("ArgMax", x, axis, keepdims)


def argmin(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The first position of the smallest element, as int64."""
    return _arg("ArgMin", x, axis, keepdims)


def cumsum(x: Tensor, axis: int | None = None, dtype: Any = None) -> Tensor:
    """numpy.cumsum."""
    data = reshape(x, -1) if axis is None else x
    number = 0 if axis is None else axis_number(axis, x.ndim)
    return emit("CumSum", _accumulated(data, dtype), axis=number, exclusive=0, reverse=0)


def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` without overflow; of integers in float64."""
    data = x if x.kind.is_float else cast(x, np.float64)
    axes = axis_numbers(axis, x.ndim)
    return emit("ReduceLogSumExp", data, axes=axes, keepdims=bool(keepdims)) if axes else data


def norm(x: Tensor, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """numpy.linalg.norm for vectors (and the Frobenius norm of matrices): ``ord`` None, 1, 2 or infinity."""
    data = x if x.kind.is_float else cast(x, np.float64)
    matrix = ord is not None and (len(axis_numbers(axis, x.ndim)) > 1)
    if matrix and ord != "fro":
        raise DTypeError(f"{where()}: the matrix norm {ord!r} cannot be compiled; 'fro' can")
    if ord in (math.inf, -math.inf):
        return reduce("ReduceMax" if ord > 0 else "ReduceMin", emit("Abs", data), axis, keepdims)
    if ord == 1:
        return reduce("ReduceL1", data, axis, keepdims)
    if ord in (None, 2, "fro"):
        return reduce("ReduceL2", data, axis, keepdims)
    powers = call_ufunc(np.power, emit("Abs", data), ord)
    return call_ufunc(np.power, sum(powers, axis, keepdims=keepdims), 1 / ord)


def average(x: Tensor, axis: Axis = None, weights: Any = None) -> Tensor:
    """numpy.average; the weights have the shape of ``x``, or are one per position along ``axis``."""
    if weights is None:
        return mean(x, axis)
    dtype = np.result_type(result_type(x, weights), np.float64 if not x.kind.is_float else x.dtype)
    scale = as_tensor(x.owner, weights, dtype)
    if scale.ndim != x.ndim and isinstance(axis, int):
        scale = reshape(scale, -1, *(1,) * (x.ndim - 1 - axis_number(axis, x.ndim)))
    total = sum(broadcast_to(scale, x.shape), axis)
    return call_ufunc(np.divide, sum(call_ufunc(np.multiply, x, scale), axis), total)
