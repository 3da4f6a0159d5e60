"""numpy's functions that choose, move and make elements, on traced tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.tracing import shaping
from polycomp.tracing.operands import as_tensor, cast, result_type, trace_of
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import Value

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """``x`` where ``condition`` holds, else ``y``: elementwise, broadcast, in the dtype that numpy promotes to."""
    trace, dtype = trace_of(condition, x, y), result_type(x, y)
    chosen = [as_tensor(trace, v, dtype) for v in (x, y)]
    return emit("Where", cast(as_tensor(trace, condition), bool), *chosen)


def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Tensor:
    """numpy.clip: NaN stays NaN."""
    low, high = a_min if a_min is not None else min, a_max if a_max is not None else max
    if isinstance(x, Value) and x.kind.is_integer:  # a limit beyond the dtype's own limits nothing
        low = None if type(low) is int and low < x.kind.minimum else low
        high = None if type(high) is int and high > x.kind.maximum else high
    result = x
    if low is not None:
        result = call_ufunc(np.maximum, result, low)
    return call_ufunc(np.minimum, result, high) if high is not None else as_tensor(trace_of(result), result)


def take(x: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    """numpy.take: negative positions count from the end; one outside fails the run."""
    data = shaping.reshape(x, -1) if axis is None else x
    number = 0 if axis is None else shaping.axis_number(axis, x.ndim)
    return emit("Gather", data, as_tensor(x.owner, indices, np.dtype(np.int64)), axis=number)


def take_along_axis(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """numpy.take_along_axis."""
    index = as_tensor(x.owner, indices, np.dtype(np.int64))
    return emit("GatherElements", x, index, axis=shaping.axis_number(axis, x.ndim))


def flip(x: Tensor, axis: Any = None) -> Tensor:
    """The order of these dimensions (None: all) reversed."""
    axes = shaping.axis_numbers(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if d in axes else slice(None) for d in range(x.ndim))]


def roll(x: Tensor, shift: Any, axis: Any = None) -> Tensor:
    """Elements moved along a dimension, or several, those beyond its end to its beginning."""
    if axis is None:
        return shaping.reshape(roll(shaping.reshape(x, -1), shift, 0), x.shape)
    for amount, number in np.broadcast(np.asarray(shift, object), np.asarray(axis, object)):
        x = _rolled(x, amount, shaping.axis_number(number, x.ndim))
    return x


def _rolled(x: Tensor, shift: Any, axis: int) -> Tensor:
    size = x.type.shape[axis]
    amount = shift % size if isinstance(size, int) and size else shift
    before = (slice(None),) * axis
    if amount == 0:
        return x
    return shaping.concatenate([x[(*before, slice(-amount, None))], x[(*before, slice(None, -amount))]], axis)


def diff(x: Tensor, n: int = 1, axis: int = -1) -> Tensor:
    """Differences of neighbours."""
    for _ in range(n):
        before = (slice(None),) * shaping.axis_number(axis, x.ndim)
        later, earlier = x[(*before, slice(1, None))], x[(*before, slice(None, -1))]
        x = call_ufunc(np.not_equal if x.dtype == bool else np.subtract, later, earlier)
    return x


def round_to(x: Tensor, decimals: int = 0) -> Tensor:
    """numpy.round: halves to even."""
    if decimals == 0 or not x.kind.is_float:
        return call_ufunc(np.rint, x) if x.kind.is_float else x
    factor = 10.0 ** abs(decimals)
    grow, shrink = (np.multiply, np.divide) if decimals > 0 else (np.divide, np.multiply)
    return call_ufunc(shrink, call_ufunc(np.rint, call_ufunc(grow, x, factor)), factor)


def full_like(x: Tensor, value: Any, dtype: Any = None, shape: Any = None) -> Tensor:
    """A tensor of one number."""
    return shaping.full(x.owner, x.shape if shape is None else shape, value, dtype or x.dtype)


def zeros_like(x: Tensor, dtype: Any = None, shape: Any = None) -> Tensor:
    """A tensor of zeros."""
    return full_like(x, 0, dtype, shape)


def ones_like(x: Tensor, dtype: Any = None, shape: Any = None) -> Tensor:
    """A tensor of ones."""
    return full_like(x, 1, dtype, shape)


def nan_to_num(x: Tensor, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Tensor:
    """NaN and infinities replaced by numbers."""
    if not x.kind.is_float:
        return x
    limits: Any = np.finfo(x.kind.value)
    for sign, number in ((1, limits.max if posinf is None else posinf), (-1, limits.min if neginf is None else neginf)):
        infinite = emit("IsInf", x, detect_positive=int(sign > 0), detect_negative=int(sign < 0))
        x = where(infinite, number, x)
    return where(emit("IsNaN", x), nan, x)
