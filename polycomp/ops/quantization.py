"""Quantisation: numbers as integers times a scale, around a zero point. Scales and zero points broadcast against x."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.dtypes import DType
from polycomp.expr import Expr, cast, const, maximum, minimum, unary
from polycomp.graph.ir import Call, TensorType
from polycomp.ops.common import FLOATS, INTEGERS, check_dtypes
from polycomp.ops.elementwise import broadcast_inputs, elementwise
from polycomp.ops.registry import family
from polycomp.ops.windows import widen


def _infer_quantize(call: Call) -> tuple[TensorType, ...]:
    """x and scale of a float type, a zero point of type ``to`` -> ``to``."""
    check_dtypes(call, FLOATS, [0])
    check_dtypes(call, FLOATS, [1])
    return (TensorType(call.attr("to"), broadcast_inputs(call)),)


def _quantize(call: Call, values: Sequence[Expr]) -> Expr:
    """saturate(round(x / scale) + zero point), each step rounded to x's type."""
    (x, scale, *zero), kind, to = values, call.input(0).dtype, DType(call.attr("to"))
    rounded = unary("round", _rounded(kind, x / cast(x.dtype, scale)))
    if zero:
        rounded = _rounded(kind, rounded + cast(rounded.dtype, zero[0]))
    low, high = const(to.minimum, rounded.dtype), const(to.maximum, rounded.dtype)
    return cast(to, minimum(maximum(rounded, low), high))


def _infer_dequantize(call: Call) -> tuple[TensorType, ...]:
    """x and zero point of an integer type, scale of a float type -> the scale's type."""
    check_dtypes(call, INTEGERS, [0])
    return (TensorType(check_dtypes(call, FLOATS, [1]), broadcast_inputs(call)),)


def _dequantize(call: Call, values: Sequence[Expr]) -> Expr:
    """(x - zero point) * scale, each step rounded to the scale's type."""
    (x, scale, *zero), kind = values, call.input(1).dtype
    number = widen(cast(kind, x))
    if zero:
        number = _rounded(kind, number - widen(cast(kind, zero[0])))
    return number * scale


def _rounded(kind: DType, value: Expr) -> Expr:
    """``value`` as precise as ``kind`` is, in the type that it is computed in."""
    return widen(cast(kind, value))


OPERATORS = family(
    elementwise("QuantizeLinear", _infer_quantize, _quantize),
    elementwise("DequantizeLinear", _infer_dequantize, _dequantize),
)
