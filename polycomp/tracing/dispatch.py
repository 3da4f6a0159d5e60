"""Which rule traces which of numpy's functions (numpy asks through ``__array_function__``), and what to do without."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from polycomp.errors import UnsupportedFunctionError
from polycomp.tracing import contraction, derived, reductions, shaping
from polycomp.tracing import numpy_functions as basic
from polycomp.tracing.operands import as_tensor, result_type, trace_of
from polycomp.tracing.ufuncs import CALL_OUTSIDE, RULES
from polycomp.tracing.value import where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor

_ABSENT = np._NoValue
_TRAPEZOID = getattr(np, "trapezoid" if hasattr(np, "trapezoid") else "trapz")  # the name before numpy 2


def call_function(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``function(*args, **kwargs)`` of numpy, traced.

    Raises :class:`UnsupportedFunctionError` for functions, or arguments of them, that are not known.
    """
    rule = FUNCTIONS.get(function)
    if rule is None:
        raise UnsupportedFunctionError(f"{where()}: {_name(function)} cannot be traced; {_advice(function)}")
    given = {k: v for k, v in kwargs.items() if v is not None and v is not _ABSENT}
    if function is np.where and len(args) == 1:
        raise UnsupportedFunctionError(f"{where()}: numpy.where of a condition alone cannot be traced; {_UNKNOWN_SIZE}")
    try:
        inspect.signature(rule).bind(*args, **given)
    except TypeError as error:
        raise UnsupportedFunctionError(f"{where()}: {_name(function)} cannot be traced so: {error}") from None
    return rule(*args, **given)


_UNKNOWN_SIZE = (
    "how large its result is depends on the values; keep the size and choose with where(mask, x, other), or count with "
    "sums of comparisons"
)
_UNKNOWN_SIZED = frozenset(
    ["argwhere", "bincount", "compress", "extract", "flatnonzero", "nonzero", "trim_zeros", "unique"]
)
_INSTEAD = {
    "apply_along_axis": "the function's own axis argument, or stack its results",
    "copyto": "where(mask, value, x), whose result is the new tensor",
    "delete": "concatenate on slices of what remains",
    "fill_diagonal": "where(eye(n, dtype=bool), value, x)",
    "insert": "concatenate",
    "piecewise": "select or where",
    "place": "where(mask, value, x), whose result is the new tensor",
    "put_along_axis": "where, with a mask made by comparing positions",
    "putmask": "where(mask, value, x), whose result is the new tensor",
}


def _advice(function: Callable[..., Any]) -> str:
    """What to do instead of a function that cannot be traced."""
    name = getattr(function, "__name__", "")
    if name in _UNKNOWN_SIZED:
        return _UNKNOWN_SIZE
    if name in _INSTEAD:
        return f"use {_INSTEAD[name]}"
    return CALL_OUTSIDE


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', 'numpy')}.{getattr(function, '__name__', function)}"


def _first(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose first operand may be an array, because another one is traced."""

    @functools.wraps(rule)
    def converted(x: Any, *args: Any, **kwargs: Any) -> Any:
        return rule(as_tensor(trace_of(x, *args, *kwargs.values()), x), *args, **kwargs)

    return converted


def _shape(x: Tensor) -> tuple[Any, ...]:
    return x.shape


def _ndim(x: Tensor) -> int:
    return x.ndim


def _size(x: Tensor, axis: int | None = None) -> Any:
    return x.size if axis is None else x.shape[axis]


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
    np.nansum: derived.nansum, np.nanmean: derived.nanmean, np.nanmax: derived.nanmax, np.nanmin: derived.nanmin,
    np.linalg.norm: reductions.norm, np.reshape: shaping.reshape, np.transpose: shaping.transpose,
    np.moveaxis: shaping.moveaxis, np.rollaxis: derived.rollaxis, np.swapaxes: shaping.swapaxes,
    np.expand_dims: shaping.expand_dims, np.squeeze: shaping.squeeze, np.broadcast_to: shaping.broadcast_to,
    np.split: shaping.split, np.array_split: shaping.array_split, np.tile: shaping.tile, np.repeat: shaping.repeat,
    np.pad: shaping.pad, np.take: basic.take, np.take_along_axis: basic.take_along_axis, np.flip: basic.flip,
    np.roll: basic.roll, np.rot90: derived.rot90, np.diff: basic.diff, np.round: basic.round_to,
    np.around: basic.round_to, np.full_like: basic.full_like, np.zeros_like: basic.zeros_like,
    np.empty_like: basic.zeros_like, np.ones_like: basic.ones_like, np.nan_to_num: basic.nan_to_num,
    np.tril: _tril, np.triu: _triu, np.trace: contraction.trace, np.diagonal: contraction.diagonal, np.copy: _copy,
    np.shape: _shape, np.ndim: _ndim, np.size: _size, np.ravel: lambda x: shaping.reshape(x, -1),
    np.flipud: lambda x: basic.flip(x, 0), np.fliplr: lambda x: basic.flip(x, 1),
    np.hsplit: lambda x, parts: shaping.split(x, parts, 0 if x.ndim == 1 else 1),
    np.vsplit: lambda x, parts: shaping.split(x, parts, 0),
    np.cov: derived.cov, np.corrcoef: derived.corrcoef, np.sinc: derived.sinc,
    np.linalg.matrix_power: derived.matrix_power, sliding_window_view: derived.sliding_window_view,
}  # fmt: skip

_ON_ALL: Mapping[Any, Callable[..., Any]] = {
    np.where: basic.where, np.clip: basic.clip, np.concatenate: shaping.concatenate, np.stack: shaping.stack,
    np.vstack: shaping.vstack, np.hstack: shaping.hstack, np.column_stack: shaping.column_stack,
    np.dstack: derived.dstack, np.block: derived.block, np.append: derived.append,
    np.dot: contraction.dot, np.inner: contraction.inner, np.outer: contraction.outer, np.vdot: contraction.vdot,
    np.tensordot: contraction.tensordot, np.einsum: _einsum, np.result_type: result_type,
    np.cross: derived.cross, np.kron: derived.kron, np.convolve: derived.convolve, np.correlate: derived.correlate,
    np.polyval: derived.polyval, np.atleast_1d: _atleast(1), np.atleast_2d: _atleast(2),
    np.meshgrid: derived.meshgrid, np.select: derived.select, np.isclose: derived.isclose,
    np.allclose: derived.allclose, np.array_equal: derived.array_equal, np.searchsorted: derived.searchsorted,
    np.digitize: derived.digitize, np.histogram: derived.histogram, np.interp: derived.interp,
    np.unravel_index: derived.unravel_index, _TRAPEZOID: derived.trapezoid,
}  # fmt: skip

FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {**{function: _first(rule) for function, rule in _ON_FIRST.items()}, **_ON_ALL}
)
"""By numpy's function."""


def function_names() -> tuple[str, ...]:
    """All of numpy's functions that can be traced, its ufuncs among them: ``add``, ``linalg.norm``, ``where``."""
    return tuple(sorted({*RULES, *(_name(f).removeprefix("numpy.") for f in FUNCTIONS)} | {"matmul", "divmod"}))
