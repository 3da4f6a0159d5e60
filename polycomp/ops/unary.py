"""Elementwise operators of one input. float16 is computed in float32.

Definitions are those of the ONNX operator specification; floats follow IEEE 754, so NaN in gives NaN out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from polycomp.dtypes import DType, as_dtype
from polycomp.expr import Expr, cast, const, maximum, minimum, ne, select, unary
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import BOOLS, FLOATS, INTEGERS, NUMBERS, broadcast_load, check_dtypes, pointwise
from polycomp.ops.registry import family
from polycomp.ops.windows import required, widen
from polycomp.te import Tensor

Formula = Callable[[Call, Expr], Expr]
"""The output element from the input element, which has been widened to float32 when it is float16."""


def _operator(name: str, formula: Formula, allowed: frozenset[DType] = FLOATS, to: DType | None = None) -> Operator:
    """An operator on inputs of the ``allowed`` types; its output is of type ``to``, or its input's."""

    def infer(call: Call) -> tuple[TensorType, ...]:
        dtype = check_dtypes(call, allowed)
        return (TensorType(to or dtype, call.input(0).shape),)

    return Operator(name, OpKind.ELEMENTWISE, infer, functools.partial(_lower, infer, formula))


def _lower(
    infer: Callable[[Call], tuple[TensorType, ...]], formula: Formula, call: Call, inputs: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    (out,) = infer(call)
    x = required(inputs, 0)

    def body(*index: Expr) -> Expr:
        return cast(out.dtype, formula(call, widen(broadcast_load(x, out.shape, index))))

    return (pointwise(call, "", out.shape, body),)


def _intrinsic(op: str) -> Formula:
    return lambda call, x: unary(op, x)


def _sign(call: Call, x: Expr) -> Expr:
    if x.dtype.is_float:
        return unary("sign", x)
    return cast(x.dtype, x > 0) - cast(x.dtype, x < 0)


def _relu(call: Call, x: Expr) -> Expr:
    return maximum(x, 0)


def _softplus(call: Call, x: Expr) -> Expr:
    """log(1 + exp(x)), without overflow for large x."""
    return unary("log1p", unary("exp", -unary("abs", x))) + maximum(x, 0)


def _softsign(call: Call, x: Expr) -> Expr:
    return x / (unary("abs", x) + 1)


def _hard_swish(call: Call, x: Expr) -> Expr:
    return x * maximum(minimum(x * (1 / 6) + 0.5, 1), 0)


def _mish(call: Call, x: Expr) -> Expr:
    return x * unary("tanh", _softplus(call, x))


def _leaky_relu(call: Call, x: Expr) -> Expr:
    return select(x < 0, x * call.attr("alpha", 0.01), x)


def _elu(call: Call, x: Expr) -> Expr:
    return select(x < 0, unary("expm1", x) * call.attr("alpha", 1.0), x)


def _selu(call: Call, x: Expr) -> Expr:
    alpha, gamma = call.attr("alpha", 1.6732632423543772), call.attr("gamma", 1.0507009873554805)
    return select(x > 0, x * gamma, unary("expm1", x) * (alpha * gamma))


def _celu(call: Call, x: Expr) -> Expr:
    alpha = call.attr("alpha", 1.0)
    return select(x < 0, unary("expm1", x / alpha) * alpha, x)


def _thresholded_relu(call: Call, x: Expr) -> Expr:
    return select(x > call.attr("alpha", 1.0), x, 0)


def _hard_sigmoid(call: Call, x: Expr) -> Expr:
    return maximum(minimum(x * call.attr("alpha", 0.2) + call.attr("beta", 0.5), 1), 0)


def _shrink(call: Call, x: Expr) -> Expr:
    """Integers are shrunk as float64 and truncated."""
    limit, bias = call.attr("lambd", 0.5), call.attr("bias", 0.0)
    value = x if x.dtype.is_float else cast(DType.FLOAT64, x)
    return cast(x.dtype, select(value < -limit, value + bias, select(value > limit, value - bias, 0)))


def _gelu(call: Call, x: Expr) -> Expr:
    """Hendrycks and Gimpel, "Gaussian error linear units", arXiv:1606.08415."""
    if call.attr("approximate", "none") == "tanh":
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (unary("tanh", inner) + 1)
    return x * 0.5 * (unary("erf", x * math.sqrt(0.5)) + 1)


def _swish(call: Call, x: Expr) -> Expr:
    return x * unary("sigmoid", x * call.attr("alpha", 1.0))


def _is_infinite(call: Call, x: Expr) -> Expr:
    signs = [s for s in ("positive", "negative") if call.attr(f"detect_{s}", 1)]
    tests = [unary(f"isinf_{s[:3]}", x) for s in signs]
    return functools.reduce(lambda a, b: a | b, tests) if tests else const(False, DType.BOOL)


def _clip(call: Call, x: Expr) -> Expr:
    """``min(max(x, low), high)``: NaN stays NaN, and ``high`` wins when ``low`` is above it."""
    low, high = call.attr("min"), call.attr("max")
    above = x if low is None else maximum(x, low)
    return above if high is None else minimum(above, high)


def _infer_cast(call: Call) -> tuple[TensorType, ...]:
    return (TensorType(as_dtype(call.attr("to")), call.input(0).shape),)


def _cast(call: Call, x: Expr) -> Expr:
    return _not_zero(x) if as_dtype(call.attr("to")) is DType.BOOL else x


def _not_zero(x: Expr) -> Expr:
    return x if x.dtype is DType.BOOL else ne(x, 0)


def _is_nan(call: Call, x: Expr) -> Expr:
    return unary("isnan", x)


def _bitwise_not(call: Call, x: Expr) -> Expr:
    return unary("not", x)


_INTRINSICS = {
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Exp2": "exp2",
    "Expm1": "expm1",
    "Floor": "floor",
    "Log": "log",
    "Log1p": "log1p",
    "Log2": "log2",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
    "Trunc": "trunc",
}
"""Operators on floats that are one intrinsic of the expression language."""

OPERATORS = family(
    *(_operator(name, _intrinsic(op)) for name, op in _INTRINSICS.items()),
    _operator("Abs", lambda call, x: unary("abs", x) if x.dtype.is_signed else x, NUMBERS),
    _operator("Neg", lambda call, x: -x, NUMBERS),
    _operator("Sign", _sign, NUMBERS),
    _operator("Not", _bitwise_not, BOOLS),
    _operator("BitwiseNot", _bitwise_not, INTEGERS),
    _operator("Relu", _relu, NUMBERS),
    _operator("Softplus", _softplus),
    _operator("Softsign", _softsign),
    _operator("HardSwish", _hard_swish),
    _operator("Mish", _mish),
    _operator("LeakyRelu", _leaky_relu),
    _operator("Elu", _elu),
    _operator("Selu", _selu),
    _operator("Celu", _celu),
    _operator("ThresholdedRelu", _thresholded_relu),
    _operator("HardSigmoid", _hard_sigmoid),
    _operator("Shrink", _shrink, NUMBERS),
    _operator("Gelu", _gelu),
    _operator("Swish", _swish),
    _operator("Clip", _clip, NUMBERS),
    _operator("IsNaN", _is_nan, FLOATS, DType.BOOL),
    _operator("IsInf", _is_infinite, FLOATS, DType.BOOL),
    Operator("Cast", OpKind.ELEMENTWISE, _infer_cast, functools.partial(_lower, _infer_cast, _cast)),
)
