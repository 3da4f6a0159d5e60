"""Elementwise operators of two and more inputs, with numpy's broadcasting. float16 is computed in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from polycomp.dtypes import DType
from polycomp.expr import Const, Expr, binary, cast, compare, const, maximum, minimum, ne, select, unary
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import (
    ANY,
    BOOLS,
    FLOATS,
    INTEGERS,
    NUMBERS,
    broadcast,
    broadcast_load,
    check_dtypes,
    dtype_error,
    pointwise,
    same_dim,
    shape_error,
)
from polycomp.ops.registry import family
from polycomp.ops.windows import widen
from polycomp.te import Tensor

Formula = Callable[[Call, Sequence[Expr]], Expr]
"""The output element from the input elements (float16 widened to float32); absent inputs are left out."""

Infer = Callable[[Call], tuple[TensorType, ...]]


def _broadcast_rule(allowed: frozenset[DType], to: DType | None = None) -> Infer:
    """All inputs of one of the ``allowed`` types; the output is of type ``to``, or theirs."""

    def infer(call: Call) -> tuple[TensorType, ...]:
        dtype = check_dtypes(call, allowed)
        return (TensorType(to or dtype, broadcast_inputs(call)),)

    return infer


def broadcast_inputs(call: Call) -> tuple[int | Expr, ...]:
    """The shape that all given inputs are broadcast to."""
    return broadcast(call, [t.shape for t in call.inputs if t is not None])


def elementwise(name: str, infer: Infer, formula: Formula) -> Operator:
    """The operator whose output elements ``formula`` makes of those of the inputs, broadcast."""
    return Operator(name, OpKind.ELEMENTWISE, infer, functools.partial(_lower, infer, formula))


def _lower(infer: Infer, formula: Formula, call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    (out,) = infer(call)
    given = [t for t in inputs if t is not None]

    def body(*index: Expr) -> Expr:
        return cast(out.dtype, formula(call, [widen(broadcast_load(t, out.shape, index)) for t in given]))

    return (pointwise(call, "", out.shape, body),)


def _folded(op: str) -> Formula:
    """``op`` on two operands, or on one after the other of many."""
    return lambda call, values: functools.reduce(lambda a, b: binary(op, a, b), values)


def _comparison(op: str) -> Formula:
    return lambda call, values: compare(op, values[0], values[1])


def _divide(call: Call, values: Sequence[Expr]) -> Expr:
    """Integers are divided towards zero, as in C."""
    x, y = values
    return binary("div" if x.dtype.is_float else "truncdiv", x, y)


def _modulo(call: Call, values: Sequence[Expr]) -> Expr:
    """``fmod`` 1: the sign of the dividend, as C's fmod and %; 0: the sign of the divisor, as Python's %."""
    x, y = values
    if not x.dtype.is_float:
        return binary("truncmod", x, y) if call.attr("fmod", 0) else x % y
    remainder = binary("fmod", x, y)
    if call.attr("fmod", 0):
        return remainder
    opposite = binary("xor", remainder < 0, y < 0) & ne(remainder, 0)
    return select(opposite, remainder + y, remainder)


def _infer_power(call: Call) -> tuple[TensorType, ...]:
    """The result has the base's element type; the exponent's may be another."""
    dtype = check_dtypes(call, NUMBERS, [0])
    check_dtypes(call, NUMBERS, [1])
    return (TensorType(dtype, broadcast_inputs(call)),)


def _power(call: Call, values: Sequence[Expr]) -> Expr:
    """Small literal exponents become products and roots. Integers are raised as float64 (exact up to 2**53)."""
    x, y = values
    if isinstance(y, Const) and (simple := _literal_power(x, y.value)) is not None:
        return simple
    kind = x.dtype if x.dtype.is_float else DType.FLOAT64
    return binary("pow", cast(kind, x), cast(kind, y))


def _literal_power(x: Expr, exponent: float) -> Expr | None:
    if exponent == 1:
        return x
    if exponent == 2:
        return x * x
    if exponent == 3:
        return x * x * x
    if exponent == 0.5 and x.dtype.is_float:
        return unary("sqrt", x)
    return unary("reciprocal", x) if exponent == -1 and x.dtype.is_float else None


def _infer_prelu(call: Call) -> tuple[TensorType, ...]:
    dtype = check_dtypes(call, NUMBERS)
    x = call.input(0)
    shape = broadcast_inputs(call)
    if len(shape) != x.rank or not all(same_dim(a, b) for a, b in zip(shape, x.shape, strict=True)):
        raise shape_error(call, "the slope cannot be broadcast to the data")
    return (TensorType(dtype, x.shape),)


def _prelu(call: Call, values: Sequence[Expr]) -> Expr:
    x, slope = values
    return select(x < 0, x * slope, x)


def _shift(call: Call, values: Sequence[Expr]) -> Expr:
    """Signed numbers are shifted arithmetically. An amount that is negative or has all bits gives what shifting on and
    on would: 0, or -1 for a negative number to the right."""
    x, y = values
    direction = call.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise dtype_error(call, f"the direction is LEFT or RIGHT, not {direction!r}")
    bits, op = x.dtype.bits, "shl" if direction == "LEFT" else "shr"
    inside = (y >= 0) & (y < bits) if x.dtype.is_signed else y < bits
    rest = binary("shr", x, bits - 1) if op == "shr" and x.dtype.is_signed else const(0, x.dtype)
    return select(inside, binary(op, x, y), rest)


def _mean(call: Call, values: Sequence[Expr]) -> Expr:
    return _folded("add")(call, values) / len(values)


def _infer_where(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, BOOLS, [0])
    dtype = check_dtypes(call, ANY, [1, 2])
    return (TensorType(dtype, broadcast_inputs(call)),)


def _where(call: Call, values: Sequence[Expr]) -> Expr:
    return select(values[0], values[1], values[2])


def _infer_clip(call: Call) -> tuple[TensorType, ...]:
    dtype = check_dtypes(call, NUMBERS)
    for position in (1, 2):
        if call.has(position) and not all(same_dim(n, 1) for n in call.input(position).shape):
            raise shape_error(call, "the limits must have one element")
    return (TensorType(dtype, call.input(0).shape),)


def _lower_clip(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    (out,) = _infer_clip(call)
    x, low, high = (*inputs, None, None)[:3]

    def limited(index: Sequence[Expr]) -> Expr:
        value = _element(x, index)
        value = value if low is None else maximum(value, _element(low, ()))
        return value if high is None else minimum(value, _element(high, ()))

    return (pointwise(call, "", out.shape, lambda *index: cast(out.dtype, limited(index))),)


def _element(tensor: Tensor | None, index: Sequence[Expr]) -> Expr:
    """The widened element at ``index``; the only element when ``index`` is empty."""
    if tensor is None:
        raise TypeError("operand 0 is required")
    if isinstance(tensor.body, Const):
        return widen(tensor.body)
    return widen(tensor[tuple(index) or (const(0),) * tensor.rank])


_ARITHMETIC = _broadcast_rule(NUMBERS)
_ON_BOOLS = _broadcast_rule(BOOLS)
_ON_INTEGERS = _broadcast_rule(INTEGERS)
_ORDERED = _broadcast_rule(NUMBERS, DType.BOOL)

OPERATORS = family(
    elementwise("Add", _ARITHMETIC, _folded("add")),
    elementwise("Sub", _ARITHMETIC, _folded("sub")),
    elementwise("Mul", _ARITHMETIC, _folded("mul")),
    elementwise("Div", _ARITHMETIC, _divide),
    elementwise("Mod", _ARITHMETIC, _modulo),
    elementwise("Pow", _infer_power, _power),
    elementwise("Atan2", _broadcast_rule(FLOATS), lambda call, values: binary("atan2", *values)),
    elementwise("PRelu", _infer_prelu, _prelu),
    elementwise("And", _ON_BOOLS, _folded("and")),
    elementwise("Or", _ON_BOOLS, _folded("or")),
    elementwise("Xor", _ON_BOOLS, _folded("xor")),
    elementwise("BitwiseAnd", _ON_INTEGERS, _folded("and")),
    elementwise("BitwiseOr", _ON_INTEGERS, _folded("or")),
    elementwise("BitwiseXor", _ON_INTEGERS, _folded("xor")),
    elementwise("BitShift", _ON_INTEGERS, _shift),
    elementwise("Equal", _broadcast_rule(ANY, DType.BOOL), _comparison("eq")),
    elementwise("Less", _ORDERED, _comparison("lt")),
    elementwise("LessOrEqual", _ORDERED, _comparison("le")),
    elementwise("Greater", _ORDERED, _comparison("gt")),
    elementwise("GreaterOrEqual", _ORDERED, _comparison("ge")),
    elementwise("Max", _ARITHMETIC, _folded("max")),
    elementwise("Min", _ARITHMETIC, _folded("min")),
    elementwise("Sum", _broadcast_rule(FLOATS), _folded("add")),
    elementwise("Mean", _broadcast_rule(FLOATS), _mean),
    elementwise("Where", _infer_where, _where),
    Operator("ClipTensor", OpKind.ELEMENTWISE, _infer_clip, _lower_clip),
)
