"""Normalisations. Means and variances are computed in two passes, in float32 (float64 for float64 data)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polycomp.expr import Expr, binary, cast, const, eq, select, unary, wrap
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import (
    FLOATS,
    axis_of,
    broadcast,
    broadcast_load,
    check_dtypes,
    count_of,
    pointwise,
    reduce_over,
    same_dim,
    same_type,
    shape_error,
    without,
)
from polycomp.ops.registry import family
from polycomp.ops.windows import as_dim, optional, required, widen
from polycomp.te import Dim, Tensor

Element = Callable[[tuple[Expr, ...]], Expr]


def _moments(
    call: Call, shape: Sequence[Dim], axes: Sequence[int], element: Element, deviation: Callable[[Expr], Expr]
) -> tuple[Tensor, Tensor]:
    """The mean over ``axes`` of ``element`` on ``shape``, and ``deviation`` of its (biased) variance."""
    total = reduce_over(call, "sum", "sum", shape, axes, element)
    count = count_of([shape[a] for a in axes], total.dtype)
    mean = pointwise(call, "mean", total.shape, lambda *i: total[i] / count)

    def square(index: tuple[Expr, ...]) -> Expr:
        centred = element(index) - mean[without(index, axes)]
        return centred * centred

    squares = reduce_over(call, "squares", "sum", shape, axes, square)
    return mean, pointwise(call, "deviation", total.shape, lambda *i: deviation(squares[i] / count))


def _inverse_root(call: Call, default: float) -> Callable[[Expr], Expr]:
    """``1 / sqrt(variance + epsilon)``."""
    epsilon = float(call.attr("epsilon", default))
    return lambda variance: unary("reciprocal", unary("sqrt", variance + epsilon))


def _scaled(value: Expr, scale: Expr | None, bias: Expr | None) -> Expr:
    product = value if scale is None else value * cast(value.dtype, scale)
    return product if bias is None else product + cast(value.dtype, bias)


def _infer_layer(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, FLOATS, [0])
    x = call.input(0)
    axis_of(call, x.rank, -1)
    for position in range(1, len(call.inputs)):
        if call.has(position):
            check_dtypes(call, FLOATS, [position])
            _check_broadcast(call, call.input(position))
    return (x,)


def _check_broadcast(call: Call, operand: TensorType) -> None:
    """Raise ShapeError unless ``operand`` broadcasts to the data without changing its shape."""
    x = call.input(0)
    shape = broadcast(call, [x.shape, operand.shape])
    if len(shape) != x.rank or not all(same_dim(a, b) for a, b in zip(shape, x.shape, strict=True)):
        raise shape_error(call, f"an operand of type {operand} cannot be broadcast to the data")


def _lower_layer(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Ba, Kiros and Hinton, "Layer normalization", arXiv:1607.06450."""
    x, scale, bias = required(inputs, 0), optional(inputs, 1), optional(inputs, 2)
    axes = range(axis_of(call, x.rank, -1), x.rank)
    mean, inverse = _moments(call, x.shape, axes, lambda i: widen(x[i]), _inverse_root(call, 1e-5))

    def normalized(*index: Expr) -> Expr:
        kept = without(index, axes)
        value = (widen(x[index]) - mean[kept]) * inverse[kept]
        return cast(x.dtype, _scaled(value, _parameter(scale, x, index), _parameter(bias, x, index)))

    return (pointwise(call, "", x.shape, normalized),)


def _parameter(operand: Tensor | None, x: Tensor, index: Sequence[Expr]) -> Expr | None:
    return None if operand is None else broadcast_load(operand, x.shape, index)


def _lower_rms(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Zhang and Sennrich, "Root mean square layer normalization", arXiv:1910.07467."""
    x, scale = required(inputs, 0), optional(inputs, 1)
    axes = range(axis_of(call, x.rank, -1), x.rank)
    squares = reduce_over(call, "squares", "sum", x.shape, axes, lambda i: widen(x[i]) * widen(x[i]))
    count, root = count_of([x.shape[a] for a in axes], squares.dtype), _inverse_root(call, 1e-5)
    inverse = pointwise(call, "deviation", squares.shape, lambda *i: root(squares[i] / count))

    def normalized(*index: Expr) -> Expr:
        value = widen(x[index]) * inverse[without(index, axes)]
        return cast(x.dtype, _scaled(value, _parameter(scale, x, index), None))

    return (pointwise(call, "", x.shape, normalized),)


def _infer_channels(call: Call) -> tuple[TensorType, ...]:
    """Data ``[N, C, ...]``; all other inputs ``[C]``."""
    check_dtypes(call, FLOATS, [0])
    x = call.input(0)
    if x.rank < 2:
        raise shape_error(call, "the data must have a batch and a channel dimension")
    for position in range(1, len(call.inputs)):
        operand = call.input(position)
        check_dtypes(call, FLOATS, [position])
        if operand.rank != 1 or not same_dim(operand.shape[0], x.shape[1]):
            raise shape_error(call, f"input {position} must have one element for each of {x.shape[1]} channels")
    return (x,)


def _infer_instance(call: Call) -> tuple[TensorType, ...]:
    if call.input(0).rank < 3:
        raise shape_error(call, "the data must have a batch, a channel and spatial dimensions")
    return _infer_channels(call)


def _lower_instance(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Ulyanov, Vedaldi and Lempitsky, "Instance normalization", arXiv:1607.08022."""
    x, scale, bias = (required(inputs, p) for p in range(3))
    axes = range(2, x.rank)
    mean, inverse = _moments(call, x.shape, axes, lambda i: widen(x[i]), _inverse_root(call, 1e-5))

    def normalized(*index: Expr) -> Expr:
        n, c = index[:2]
        return cast(x.dtype, _scaled((widen(x[index]) - mean[n, c]) * inverse[n, c], scale[c], bias[c]))

    return (pointwise(call, "", x.shape, normalized),)


def _infer_group(call: Call) -> tuple[TensorType, ...]:
    channels, groups = call.input(0).shape[1], int(call.attr("num_groups"))
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise shape_error(call, f"{channels} channels cannot be divided into {groups} groups")
    return _infer_channels(call)


def _lower_group(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Wu and He, "Group normalization", arXiv:1803.08494."""
    x, scale, bias = (required(inputs, p) for p in range(3))
    groups = int(call.attr("num_groups"))
    size = as_dim(wrap(x.shape[1]) // groups)
    grouped = (x.shape[0], groups, size, *x.shape[2:])

    def element(index: tuple[Expr, ...]) -> Expr:
        n, group, channel, *spatial = index
        return widen(x[(n, group * size + channel, *spatial)])

    mean, inverse = _moments(call, grouped, range(2, len(grouped)), element, _inverse_root(call, 1e-5))

    def normalized(*index: Expr) -> Expr:
        n, c = index[:2]
        group = (n, binary("floordiv", c, size))
        return cast(x.dtype, _scaled((widen(x[index]) - mean[group]) * inverse[group], scale[c], bias[c]))

    return (pointwise(call, "", x.shape, normalized),)


def _lower_batch(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """``x * factor + offset`` with a factor and an offset per channel (inference)."""
    x = required(inputs, 0)
    scale, bias, mean, variance = (required(inputs, p) for p in range(1, 5))
    kind, root = widen(x[(const(0),) * x.rank]).dtype, _inverse_root(call, 1e-5)

    def factor_of(c: Expr) -> Expr:
        return cast(kind, scale[c]) * root(cast(kind, variance[c]))

    factor = pointwise(call, "factor", scale.shape, factor_of)
    offset = pointwise(call, "offset", scale.shape, lambda c: cast(kind, bias[c]) - cast(kind, mean[c]) * factor[c])
    return (pointwise(call, "", x.shape, lambda *i: cast(x.dtype, widen(x[i]) * factor[i[1]] + offset[i[1]])),)


def _infer_floats(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, FLOATS)
    return same_type(call)


def _infer_mean_variance(call: Call) -> tuple[TensorType, ...]:
    axes, rank = call.attr("axes", (0, 2, 3)), call.input(0).rank
    if len(set(axes)) < len(axes) or not all(0 <= a < rank for a in axes):
        raise shape_error(call, f"the axes {list(axes)} are not different dimensions out of {rank}")
    return _infer_floats(call)


_MEAN_VARIANCE_EPSILON = 1e-9
"""Added to the standard deviation, as in the operator's ONNX function body."""


def _lower_mean_variance(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    axes = tuple(call.attr("axes", (0, 2, 3)))

    def inverse_of(variance: Expr) -> Expr:
        return unary("reciprocal", unary("sqrt", variance) + _MEAN_VARIANCE_EPSILON)

    mean, inverse = _moments(call, x.shape, axes, lambda i: widen(x[i]), inverse_of)

    def normalized(*index: Expr) -> Expr:
        kept = without(index, axes)
        return cast(x.dtype, (widen(x[index]) - mean[kept]) * inverse[kept])

    return (pointwise(call, "", x.shape, normalized),)


def _infer_lp(call: Call) -> tuple[TensorType, ...]:
    axis_of(call, call.input(0).rank, -1)
    if call.attr("p", 2) not in (1, 2):
        raise shape_error(call, f"p is 1 or 2, not {call.attr('p')}")
    return _infer_floats(call)


def _lower_lp(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """``x / norm`` along one axis; 0 where the norm is 0."""
    x = required(inputs, 0)
    axis, absolute = axis_of(call, x.rank, -1), call.attr("p", 2) == 1

    def element(index: tuple[Expr, ...]) -> Expr:
        value = widen(x[index])
        return unary("abs", value) if absolute else value * value

    total = reduce_over(call, "sum", "sum", x.shape, [axis], element)

    def divisor(*index: Expr) -> Expr:
        norm = total[index] if absolute else unary("sqrt", total[index])
        return select(eq(norm, 0), const(1, norm.dtype), norm)

    norm = pointwise(call, "norm", total.shape, divisor)
    return (pointwise(call, "", x.shape, lambda *i: cast(x.dtype, widen(x[i]) / norm[without(i, [axis])])),)


OPERATORS = family(
    Operator("LayerNormalization", OpKind.REDUCTION, _infer_layer, _lower_layer),
    Operator("RMSNormalization", OpKind.REDUCTION, _infer_layer, _lower_rms),
    Operator("InstanceNormalization", OpKind.REDUCTION, _infer_instance, _lower_instance),
    Operator("GroupNormalization", OpKind.REDUCTION, _infer_group, _lower_group),
    # Not ELEMENTWISE: its channel operands are aligned with dimension 1, not by numpy's broadcasting.
    Operator("BatchNormalization", OpKind.INJECTIVE, _infer_channels, _lower_batch),
    Operator("MeanVarianceNormalization", OpKind.REDUCTION, _infer_mean_variance, _lower_mean_variance),
    Operator("LpNormalization", OpKind.REDUCTION, _infer_lp, _lower_lp),
)
