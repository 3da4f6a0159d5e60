"""Softmax and LogSoftmax over one axis, shifted by the maximum so that nothing overflows; float16 in float32."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import Expr, cast, unary
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import FLOATS, axis_of, check_dtypes, pointwise, reduce_over, without
from polycomp.ops.registry import family
from polycomp.ops.windows import required, widen
from polycomp.te import Tensor


def _infer(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, FLOATS)
    axis_of(call, call.input(0).rank, -1)
    return (call.input(0),)


def _maximum(call: Call, x: Tensor, axis: int) -> Tensor:
    return reduce_over(call, "max", "max", x.shape, [axis], lambda i: widen(x[i]))


def _lower_softmax(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The exponentials are a tensor of their own, so that each is computed once for its sum and its quotient.

    That is a product with the sum's reciprocal, which is between 1 / n and 1: a division takes a vector's time of ten.
    """
    x = required(inputs, 0)
    axis = axis_of(call, x.rank, -1)
    largest = _maximum(call, x, axis)

    def exponential(*index: Expr) -> Expr:
        return unary("exp", widen(x[index]) - largest[without(index, [axis])])

    powers = pointwise(call, "exp", x.shape, exponential)
    total = reduce_over(call, "sum", "sum", x.shape, [axis], lambda i: powers[i])
    inverse = pointwise(call, "inverse", total.shape, lambda *i: unary("reciprocal", total[i]))
    return (pointwise(call, "", x.shape, lambda *i: cast(x.dtype, powers[i] * inverse[without(i, [axis])])),)


def _lower_log_softmax(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    axis = axis_of(call, x.rank, -1)
    largest = _maximum(call, x, axis)

    def shifted(index: tuple[Expr, ...]) -> Expr:
        return widen(x[index]) - largest[without(index, [axis])]

    total = reduce_over(call, "sum", "sum", x.shape, [axis], lambda i: unary("exp", shifted(i)))
    logarithm = pointwise(call, "log", total.shape, lambda *i: unary("log", total[i]))
    return (pointwise(call, "", x.shape, lambda *i: cast(x.dtype, shifted(i) - logarithm[without(i, [axis])])),)


OPERATORS = family(
    Operator("Softmax", OpKind.REDUCTION, _infer, _lower_softmax),
    Operator("LogSoftmax", OpKind.REDUCTION, _infer, _lower_log_softmax),
)
