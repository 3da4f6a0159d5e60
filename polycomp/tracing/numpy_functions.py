"""numpy's functions on traced tensors (numpy calls them through ``__array_function__``)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.errors import UnsupportedFunctionError
from polycomp.tracing import contraction, reductions, shaping
from polycomp.tracing.operands import as_tensor, cast, result_type, trace_of
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import Value
from polycomp.tracing.value import where as location

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor

_ABSENT = np._NoValue


def call_function(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``function(*args, **kwargs)`` of numpy, traced.

    Raises :class:`UnsupportedFunctionError` for functions, or arguments of them, that are not known.
    """
    rule = FUNCTIONS.get(function)
    if rule is None:
        raise UnsupportedFunctionError(
            f"{location()}: {_name(function)} cannot be traced; polycomp and numpy operations that can are listed in "
            f"docs/jit.md"
        )
    given = {k: v for k, v in kwargs.items() if v is not None and v is not _ABSENT}
    try:
        inspect.signature(rule).bind(*args, **given)
    except TypeError as error:
        raise UnsupportedFunctionError(f"{location()}: {_name(function)} cannot be traced so: {error}") from None
    return rule(*args, **given)


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', 'numpy')}.{getattr(function, '__name__', function)}"


def _first(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose first operand may be an array, because another one is traced."""

    @functools.wraps(rule)
    def converted(x: Any, *args: Any, **kwargs: Any) -> Any:
        return rule(as_tensor(trace_of(x, *args, *kwargs.values()), x), *args, **kwargs)

    return converted


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
    return emit("Gather", data, as_tensor(x.trace, indices, np.dtype(np.int64)), axis=number)


def take_along_axis(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """numpy.take_along_axis."""
    index = as_tensor(x.trace, indices, np.dtype(np.int64))
    return emit("GatherElements", x, index, axis=shaping.axis_number(axis, x.ndim))


def flip(x: Tensor, axis: Any = None) -> Tensor:
    """The order of these dimensions (None: all) reversed."""
    axes = shaping.axis_numbers(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if d in axes else slice(None) for d in range(x.ndim))]


def roll(x: Tensor, shift: int, axis: int | None = None) -> Tensor:
    """Elements moved along a dimension, those beyond its end to its beginning."""
    if axis is None:
        return shaping.reshape(roll(shaping.reshape(x, -1), shift, 0), x.shape)
    number = shaping.axis_number(axis, x.ndim)
    size = x.type.shape[number]
    amount = shift % size if isinstance(size, int) and size else shift
    before = (slice(None),) * number
    if amount == 0:
        return x
    return shaping.concatenate([x[(*before, slice(-amount, None))], x[(*before, slice(None, -amount))]], number)


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
    return shaping.full(x.trace, x.shape if shape is None else shape, value, dtype or x.dtype)


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


def _shape(x: Tensor) -> tuple[Any, ...]:
    return x.shape


def _ndim(x: Tensor) -> int:
    return x.ndim


def _size(x: Tensor, axis: int | None = None) -> Any:
    return x.size if axis is None else x.shape[axis]


def _astype(x: Tensor, dtype: Any) -> Tensor:
    return cast(x, dtype)


def _tril(x: Tensor, k: int = 0) -> Tensor:
    return shaping.triangle(x, k, False)


def _triu(x: Tensor, k: int = 0) -> Tensor:
    return shaping.triangle(x, k, True)


def _einsum(subscripts: str, *operands: Any, optimize: Any = False) -> Tensor:
    return contraction.einsum(subscripts, *operands)


def _copy(x: Tensor) -> Tensor:
    return x


def _atleast(rank: int) -> Callable[..., Any]:
    def rule(*tensors: Any) -> Any:
        trace = trace_of(*tensors)
        results = [_with_rank(as_tensor(trace, t), rank) for t in tensors]
        return results[0] if len(results) == 1 else tuple(results)

    return rule


def _with_rank(x: Tensor, rank: int) -> Tensor:
    return shaping.reshape(x, (*(1,) * max(0, rank - x.ndim), *x.type.shape))


_ON_FIRST: Mapping[Any, Callable[..., Any]] = {
    np.sum: reductions.sum, np.prod: reductions.prod, np.mean: reductions.mean, np.var: reductions.var,
    np.std: reductions.std, np.max: reductions.max, np.min: reductions.min, np.ptp: reductions.ptp,
    np.all: reductions.all, np.any: reductions.any, np.argmax: reductions.argmax, np.argmin: reductions.argmin,
    np.count_nonzero: reductions.count_nonzero, np.cumsum: reductions.cumsum, np.average: reductions.average,
    np.linalg.norm: reductions.norm, np.reshape: shaping.reshape, np.transpose: shaping.transpose,
    np.moveaxis: shaping.moveaxis, np.swapaxes: shaping.swapaxes, np.expand_dims: shaping.expand_dims,
    np.squeeze: shaping.squeeze, np.broadcast_to: shaping.broadcast_to, np.split: shaping.split,
    np.array_split: shaping.array_split, np.tile: shaping.tile, np.repeat: shaping.repeat, np.pad: shaping.pad,
    np.take: take, np.take_along_axis: take_along_axis, np.flip: flip, np.roll: roll, np.diff: diff,
    np.round: round_to, np.around: round_to, np.full_like: full_like, np.zeros_like: zeros_like,
    np.empty_like: zeros_like, np.ones_like: ones_like, np.nan_to_num: nan_to_num, np.tril: _tril, np.triu: _triu,
    np.trace: contraction.trace, np.diagonal: contraction.diagonal, np.copy: _copy, np.shape: _shape, np.ndim: _ndim,
    np.size: _size, np.ravel: lambda x: shaping.reshape(x, -1), np.flipud: lambda x: flip(x, 0),
    np.fliplr: lambda x: flip(x, 1),
    np.hsplit: lambda x, parts: shaping.split(x, parts, 0 if x.ndim == 1 else 1),
    np.vsplit: lambda x, parts: shaping.split(x, parts, 0),
}  # fmt: skip

_ON_ALL: Mapping[Any, Callable[..., Any]] = {
    np.where: where, np.clip: clip, np.concatenate: shaping.concatenate, np.stack: shaping.stack,
    np.vstack: shaping.vstack, np.hstack: shaping.hstack, np.column_stack: shaping.column_stack,
    np.dot: contraction.dot, np.inner: contraction.inner, np.outer: contraction.outer, np.vdot: contraction.vdot,
    np.tensordot: contraction.tensordot, np.einsum: _einsum, np.result_type: result_type,
    np.atleast_1d: _atleast(1), np.atleast_2d: _atleast(2),
}  # fmt: skip

FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {**{function: _first(rule) for function, rule in _ON_FIRST.items()}, **_ON_ALL}
)
"""By numpy's function."""
