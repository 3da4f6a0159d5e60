"""MaxPool, AveragePool, LpPool and the global pools, on plain ``[N, C, spatial...]`` and channel-blocked data.

The blocked operators take ``[N, ceil(C / c), spatial..., c]`` and keep that layout; every definition here serves both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from polycomp import te
from polycomp.dtypes import DType
from polycomp.errors import DTypeError
from polycomp.expr import Const, Expr, cast, const, maximum, minimum, unary, wrap
from polycomp.graph.ir import Call, Infer, Lower, Operator, OpKind, TensorType
from polycomp.ops.windows import (
    FIRST_SPATIAL,
    Window,
    as_dim,
    axis_names,
    check_spatial,
    define,
    narrow,
    output_sizes,
    pad_for_windows,
    reduction_axes,
    required,
    spatial_names,
    widen,
    window_of,
)
from polycomp.te import Dim, Tensor

Reduction = Callable[[Expr, Sequence[te.Axis]], Expr]


def layout_names(rank: int, trailing: int) -> tuple[str, ...]:
    """Axis names of a result with ``rank`` spatial dimensions, blocked when ``trailing`` is 1."""
    if trailing:
        return ("n", "ko", *spatial_names(rank, "o"), "ki")
    return ("n", "k", *spatial_names(rank))


def _window(call: Call) -> Window:
    return window_of(call, tuple(call.attr("kernel_shape")))


def _ceil_mode(call: Call) -> bool:
    return bool(call.attr("ceil_mode", False))


def _infer_pool(trailing: int) -> Infer:
    def infer(call: Call) -> tuple[TensorType, ...]:
        x = call.input(0)
        window = _window(call)
        check_spatial(call, window.rank, x.shape, trailing)
        last = FIRST_SPATIAL + window.rank
        sizes = output_sizes(call, x.shape[FIRST_SPATIAL:last], window, _ceil_mode(call))
        return (TensorType(x.dtype, (*x.shape[:FIRST_SPATIAL], *sizes, *x.shape[last:])),)

    return infer


def _float_only(infer: Infer) -> Infer:
    def checked(call: Call) -> tuple[TensorType, ...]:
        if not call.input(0).dtype.is_float:
            raise DTypeError(f"{call.op} {call.node!r} takes floats, not {call.input(0)}")
        return infer(call)

    return checked


def _pool(call: Call, x: Tensor, name: str, fill: float, reduction: Reduction) -> Tensor:
    """``reduction`` over each window of ``x``, with ``fill`` around it."""
    window = _window(call)
    trailing = x.rank - FIRST_SPATIAL - window.rank
    source = pad_for_windows(call, x, window, fill, _ceil_mode(call))
    (out,) = _infer_pool(trailing)(call)
    taps = reduction_axes(window.kernel, spatial_names(window.rank, "k"))

    def body(n: Expr, c: Expr, *index: Expr) -> Expr:
        position = window.at(index[: window.rank], taps)
        return reduction(widen(source[(n, c, *position, *index[window.rank :])]), taps)

    return define(f"{call.node}.{name}", out.shape, layout_names(window.rank, trailing), body, call.node)


def _map(call: Call, x: Tensor, name: str, function: Callable[[Expr, tuple[Expr, ...]], Expr]) -> Tensor:
    """``function`` of each element of ``x`` and its index."""
    return define(f"{call.node}.{name}", x.shape, axis_names(x), lambda *i: function(x[i], i), call.node)


def _lower_max(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    largest = _pool(call, x, "max", x.dtype.minimum, te.max)
    return (narrow(largest, x.dtype, f"{call.node}.cast", call.node),)


def _lower_average(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    window = _window(call)
    total = _pool(call, x, "sum", 0, te.sum)
    sizes = x.shape[FIRST_SPATIAL : FIRST_SPATIAL + window.rank]

    def mean(value: Expr, index: tuple[Expr, ...]) -> Expr:
        starts = index[FIRST_SPATIAL : FIRST_SPATIAL + window.rank]
        return value * _reciprocal_count(call, window, sizes, starts, total.dtype)

    return (narrow(_map(call, total, "mean", mean), x.dtype, f"{call.node}.cast", call.node),)


def _reciprocal_count(call: Call, window: Window, sizes: Sequence[Dim], starts: Sequence[Expr], dtype: DType) -> Expr:
    """1 / (number of elements that count in the window number ``starts``)."""
    return _reciprocal([_count(call, window, d, size, starts[d]) for d, size in enumerate(sizes)], dtype)


def _reciprocal(factors: Sequence[Dim], dtype: DType) -> Expr:
    """1 / (product of ``factors``): a literal when all are known."""
    product = functools.reduce(lambda a, b: a * b, map(wrap, factors))
    if isinstance(product, Const):
        return const(1 / product.value if product.value else math.inf, dtype)
    return const(1, dtype) / cast(dtype, product)


def _count(call: Call, window: Window, d: int, size: Dim, start: Expr) -> Dim:
    """How many taps of window number ``start`` lie on data, or on data and padding with count_include_pad."""
    kernel, begin, end = window.kernel[d], window.begin[d], window.end[d]
    include = bool(call.attr("count_include_pad", False))
    if not _ceil_mode(call) and (include or begin <= 0 >= end):
        return kernel
    dilation = window.dilations[d]
    position = start * window.strides[d]
    # Tap t is at position + t * dilation in the padded input, where data begins at ``begin``.
    low = 0 if include else begin
    high = size + begin + (end if include else 0)
    first = maximum((low - position + dilation - 1) // dilation, 0) if low > 0 else const(0)
    last = minimum((high - position + dilation - 1) // dilation, kernel)
    return as_dim(last - first)


def _lower_lp(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    p = int(call.attr("p", 2))
    total = _pool(call, x, "sum", 0, lambda value, axes: te.sum(_power(value, p), axes))
    root = _map(call, total, "root", lambda value, _: _root(value, p))
    return (narrow(root, x.dtype, f"{call.node}.cast", call.node),)


def _power(value: Expr, p: int) -> Expr:
    """``abs(value) ** p``."""
    if p == 2:
        return value * value
    size = unary("abs", value)
    return size if p == 1 else size ** float(p)


def _root(value: Expr, p: int) -> Expr:
    if p == 2:
        return unary("sqrt", value)
    return value if p == 1 else value ** (1.0 / p)


def _infer_global(trailing: int) -> Infer:
    def infer(call: Call) -> tuple[TensorType, ...]:
        x = call.input(0)
        rank = x.rank - FIRST_SPATIAL - trailing
        check_spatial(call, rank, x.shape, trailing)
        return (TensorType(x.dtype, (*x.shape[:FIRST_SPATIAL], *(1,) * rank, *x.shape[x.rank - trailing :])),)

    return infer


def _global(call: Call, x: Tensor, name: str, trailing: int, reduction: Reduction) -> Tensor:
    """``reduction`` over all spatial dimensions of ``x``."""
    rank = x.rank - FIRST_SPATIAL - trailing
    (out,) = _infer_global(trailing)(call)
    spatial = reduction_axes(x.shape[FIRST_SPATIAL : FIRST_SPATIAL + rank], spatial_names(rank, "k"))

    def body(n: Expr, c: Expr, *index: Expr) -> Expr:
        return reduction(widen(x[(n, c, *spatial, *index[rank:])]), spatial)

    return define(f"{call.node}.{name}", out.shape, layout_names(rank, trailing), body, call.node)


def _lower_global_max(trailing: int) -> Lower:
    def lower(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        x = required(inputs, 0)
        largest = _global(call, x, "max", trailing, te.max)
        return (narrow(largest, x.dtype, f"{call.node}.cast", call.node),)

    return lower


def _lower_global_average(trailing: int) -> Lower:
    def lower(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        x = required(inputs, 0)
        total = _global(call, x, "sum", trailing, te.sum)
        scale = _reciprocal(x.shape[FIRST_SPATIAL : x.rank - trailing], total.dtype)
        mean = _map(call, total, "mean", lambda value, _: value * scale)
        return (narrow(mean, x.dtype, f"{call.node}.cast", call.node),)

    return lower


def pooling_operators(suffix: str, trailing: int) -> dict[str, Operator]:
    """All pooling operators for a layout with ``trailing`` (0 or 1) dimensions after the spatial ones."""
    windowed, whole = _infer_pool(trailing), _infer_global(trailing)
    rules: dict[str, tuple[Infer, Lower]] = {
        "MaxPool": (windowed, _lower_max),
        "AveragePool": (_float_only(windowed), _lower_average),
        "LpPool": (_float_only(windowed), _lower_lp),
        "GlobalMaxPool": (whole, _lower_global_max(trailing)),
        "GlobalAveragePool": (_float_only(whole), _lower_global_average(trailing)),
    }
    return {n + suffix: Operator(n + suffix, OpKind.REDUCTION, *rule) for n, rule in rules.items()}


OPERATORS: Mapping[str, Operator] = MappingProxyType(pooling_operators("", 0))
