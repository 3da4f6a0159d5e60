"""numpy's universal functions as canonical operators. The dtypes are those that numpy itself resolves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType, as_dtype
from polycomp.errors import DTypeError, UnsupportedFunctionError
from polycomp.tracing.operands import as_tensor, cast, promoted, trace_of
from polycomp.tracing.value import Value, where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor

Rule = Callable[..., "Tensor"]
"""The result of operands that have the dtypes of numpy's loop."""

_BOOL = np.dtype(bool)

CALL_OUTSIDE = (
    "call it outside of the function and pass its result as an argument, or write it with functions that the "
    "documentation lists under Functions"
)
"""What to do about functions of numpy that cannot be traced."""


def call_ufunc(ufunc: np.ufunc, *operands: Any) -> Tensor:
    """The result of a one-output ufunc; Python numbers are weak. Raises DTypeError where numpy has no such loop."""
    rule = RULES.get(ufunc.__name__)
    if rule is None:
        raise UnsupportedFunctionError(f"{where()}: numpy.{ufunc.__name__} cannot be traced; {CALL_OUTSIDE}")
    trace = trace_of(*operands)
    if ufunc.__name__ in _COMPARISONS:
        operands = _comparable(operands)
    loop = _loop(ufunc, operands)
    tensors = [as_tensor(trace, o, d) for o, d in zip(operands, loop, strict=False)]
    return cast(rule(*tensors), loop[-1])


_COMPARISONS = frozenset(["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])


def _comparable(operands: Sequence[Any]) -> tuple[Any, ...]:
    """Python ints that the other operand's dtype does not hold are compared as int64, as numpy does."""
    limits = [o.kind for o in operands if isinstance(o, Value) and o.kind.is_integer and not o.weak]
    outside = [type(o) is int and any(not k.minimum <= o <= k.maximum for k in limits) for o in operands]
    return tuple(np.int64(o) if out else o for o, out in zip(operands, outside, strict=True))


def operate(ufunc: np.ufunc, *operands: Any) -> Tensor:
    """The same for Python's operators, whose result on Python's numbers alone is as weak as they are."""
    result = call_ufunc(ufunc, *operands)
    # No dtype is a type, but numpy's compare equal to Python's types.
    weak = all(isinstance(promoted(o), type) for o in operands) and result.kind in (DType.INT64, DType.FLOAT64)
    return result.owner.view(result, weak)


def _loop(ufunc: np.ufunc, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The dtypes of numpy's inner loop, operands then result."""
    kinds = [promoted(o) for o in operands]
    if all(k is int or k is float for k in kinds):
        kinds = [np.dtype(np.float64 if k is float else np.int64) for k in kinds]
    try:
        loop = ufunc.resolve_dtypes((*kinds, None))
        for dtype in loop:
            as_dtype(dtype)
        return loop
    except (TypeError, DTypeError) as error:
        names = " and ".join(k.__name__ if isinstance(k, type) else str(k) for k in kinds)
        raise DTypeError(f"{where()}: numpy.{ufunc.__name__} of {names} cannot be compiled: {error}") from None


def emit(op: str, *inputs: Tensor, **attributes: Any) -> Tensor:
    """A canonical operator on operands that have the dtypes it takes."""
    return inputs[0].owner.emit(op, inputs, attributes)


def like(x: Tensor, number: float | bool) -> Tensor:
    """A scalar of the dtype of ``x``."""
    return x.owner.constant(np.asarray(number, x.dtype))


def _plain(op: str, **attributes: Any) -> Rule:
    return lambda *operands: emit(op, *operands, **attributes)


def _by_kind(numbers: Rule, bools: Rule) -> Rule:
    """One rule for numbers and another for bools."""
    return lambda *operands: (bools if operands[0].kind is DType.BOOL else numbers)(*operands)


def _on_floats(floats: Rule, others: Rule) -> Rule:
    return lambda *operands: (floats if operands[0].kind.is_float else others)(*operands)


def _same(x: Tensor) -> Tensor:
    return x


def _comparison(op: str) -> Rule:
    """Bools are compared as bytes; numpy also compares int64 with uint64, exactly."""

    def rule(a: Tensor, b: Tensor) -> Tensor:
        if a.kind is not b.kind:
            return _compare_signs(op, a, b)
        if a.kind is DType.BOOL and op != "Equal":
            a, b = cast(a, np.uint8), cast(b, np.uint8)
        return emit(op, a, b)

    return rule


_MIRRORED = {
    "Less": "Greater", "LessOrEqual": "GreaterOrEqual", "Greater": "Less", "GreaterOrEqual": "LessOrEqual",
    "Equal": "Equal",
}  # fmt: skip


def _compare_signs(op: str, a: Tensor, b: Tensor) -> Tensor:
    """A uint64 against an int64: a negative number is below all of the others."""
    if b.kind is DType.UINT64:
        return _compare_signs(_MIRRORED[op], b, a)
    negative = emit("Less", b, like(b, 0))
    same_sign = emit(op, a, cast(b, a.dtype))
    if op.startswith("Greater"):
        return emit("Or", negative, same_sign)
    return emit("And", emit("Not", negative), same_sign)


def _not_equal(a: Tensor, b: Tensor) -> Tensor:
    return emit("Not", _comparison("Equal")(a, b))


def _logical(op: str) -> Rule:
    return lambda *operands: emit(op, *(cast(o, _BOOL) for o in operands))


def _nonzero(b: Tensor) -> bool:
    """Whether a divisor is surely not 0."""
    known = b.owner.known(b)
    return known is not None and bool(np.all(known != 0))


def _zero_safe(rule: Rule) -> Rule:
    """Integers divided by 0 give 0, as in numpy."""

    def safe(a: Tensor, b: Tensor) -> Tensor:
        if _nonzero(b):
            return rule(a, b)
        zero = emit("Equal", b, like(b, 0))
        return emit("Where", zero, like(a, 0), rule(a, emit("Where", zero, like(b, 1), b)))

    return safe


def _floor_divide_integers(a: Tensor, b: Tensor) -> Tensor:
    quotient = emit("Div", a, b)
    if not a.kind.is_signed:
        return quotient
    rest = emit("Sub", a, emit("Mul", quotient, b))
    opposite = emit("Xor", emit("Less", rest, like(a, 0)), emit("Less", b, like(b, 0)))
    inexact = emit("Not", emit("Equal", rest, like(a, 0)))
    return emit("Sub", quotient, cast(emit("And", inexact, opposite), a.dtype))


def _floor_divide_floats(a: Tensor, b: Tensor) -> Tensor:
    """As numpy: the quotient less the remainder's part is nearly an integer, and is rounded to it."""
    rest = emit("Mod", a, b, fmod=0)
    quotient = emit("Div", emit("Sub", a, rest), b)
    floor = emit("Floor", quotient)
    beyond = emit("Greater", emit("Sub", quotient, floor), like(a, 0.5))
    rounded = emit("Add", floor, cast(beyond, a.dtype))
    return emit("Where", emit("Equal", b, like(b, 0)), emit("Div", a, b), rounded)


def _power(a: Tensor, b: Tensor) -> Tensor:
    """Integers to a known small power are multiplied, exactly; others go through float64."""
    known = b.owner.known(b)
    if known is None or known.ndim or a.kind.is_float:
        return emit("Pow", a, b)
    exponent = int(known)
    if exponent < 0:
        raise DTypeError(f"{where()}: integers to a negative power are no integers; convert the base with astype")
    return _whole_power(a, exponent)


def _whole_power(a: Tensor, exponent: int) -> Tensor:
    """By squaring."""
    if exponent == 0:
        return emit("Add", emit("Mul", a, like(a, 0)), like(a, 1))
    if exponent == 1:
        return a
    half = _whole_power(a, exponent // 2)
    square = emit("Mul", half, half)
    return emit("Mul", square, a) if exponent % 2 else square


def _is_finite(x: Tensor) -> Tensor:
    return emit("Not", emit("Or", emit("IsNaN", x), emit("IsInf", x)))


def _constantly(answer: bool) -> Rule:
    """What integers answer to questions about floats."""
    return lambda x: emit("Equal" if answer else "Less", x, x)


def _picks(op: str, ignored: str) -> Rule:
    """fmax and fmin: the other operand where one is NaN."""

    def rule(a: Tensor, b: Tensor) -> Tensor:
        if not a.kind.is_float:
            return RULES[ignored](a, b)
        best = emit(op, a, b)
        return emit("Where", emit("IsNaN", a), b, emit("Where", emit("IsNaN", b), a, best))

    return rule


def _scaled(op: str, factor: float) -> Rule:
    return lambda x: emit("Mul", emit(op, x) if op else x, like(x, factor))


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """Scaled by the larger leg, so that squares neither overflow nor vanish."""
    x, y = emit("Abs", a), emit("Abs", b)
    large, small = emit("Max", x, y), emit("Min", x, y)
    scale = emit("Where", emit("Equal", large, like(a, 0)), like(a, 1), large)
    ratio = emit("Div", small, scale)
    length = emit("Mul", large, emit("Sqrt", emit("Add", emit("Mul", ratio, ratio), like(a, 1))))
    return emit("Where", emit("IsInf", large), large, length)


def _log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    difference = emit("Neg", emit("Abs", emit("Sub", a, b)))
    larger = emit("Max", a, b)
    total = emit("Add", larger, emit("Log1p", emit("Exp", difference)))
    return emit("Where", emit("Equal", a, b), emit("Add", larger, like(a, math.log(2))), total)


def _cube_root(x: Tensor) -> Tensor:
    root = emit("Pow", emit("Abs", x), like(x, 1 / 3))
    return emit("Mul", emit("Sign", x), root)


def _copy_sign(a: Tensor, b: Tensor) -> Tensor:
    negative = emit("Less", emit("Where", emit("Equal", b, like(b, 0)), emit("Div", like(b, 1), b), b), like(b, 0))
    size = emit("Abs", a)
    return emit("Where", negative, emit("Neg", size), size)


def _heaviside(x: Tensor, middle: Tensor) -> Tensor:
    step = emit("Where", emit("Greater", x, like(x, 0)), like(x, 1), like(x, 0))
    split = emit("Where", emit("Equal", x, like(x, 0)), middle, step)
    return emit("Where", emit("IsNaN", x), x, split)


def _square(x: Tensor) -> Tensor:
    return RULES["multiply"](x, x)


def _shift(direction: str) -> Rule:
    return _plain("BitShift", direction=direction)


_INTRINSICS = {
    "arccos": "Acos", "arccosh": "Acosh", "arcsin": "Asin", "arcsinh": "Asinh", "arctan": "Atan", "arctanh": "Atanh",
    "cos": "Cos", "cosh": "Cosh", "exp": "Exp", "exp2": "Exp2", "expm1": "Expm1", "log": "Log", "log1p": "Log1p",
    "log2": "Log2", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh", "negative": "Neg",
}  # fmt: skip

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{name: _plain(op) for name, op in _INTRINSICS.items()},
        "add": _by_kind(_plain("Add"), _plain("Or")),
        "subtract": _plain("Sub"),
        "multiply": _by_kind(_plain("Mul"), _plain("And")),
        "divide": _plain("Div"),
        "floor_divide": _on_floats(_floor_divide_floats, _zero_safe(_floor_divide_integers)),
        "remainder": _on_floats(_plain("Mod", fmod=0), _zero_safe(_plain("Mod", fmod=0))),
        "fmod": _on_floats(_plain("Mod", fmod=1), _zero_safe(_plain("Mod", fmod=1))),
        "power": _power,
        "float_power": _power,
        "positive": _same,
        "absolute": _by_kind(_plain("Abs"), _same),
        "fabs": _plain("Abs"),
        "sign": _plain("Sign"),
        "square": _square,
        "reciprocal": _on_floats(_plain("Reciprocal"), lambda x: _zero_safe(_floor_divide_integers)(like(x, 1), x)),
        "cbrt": _cube_root,
        "hypot": _hypot,
        "arctan2": _plain("Atan2"),
        "logaddexp": _log_add_exp,
        "log10": _scaled("Log", 1 / math.log(10)),
        "deg2rad": _scaled("", math.pi / 180),
        "radians": _scaled("", math.pi / 180),
        "rad2deg": _scaled("", 180 / math.pi),
        "degrees": _scaled("", 180 / math.pi),
        "copysign": _copy_sign,
        "heaviside": _heaviside,
        "rint": _on_floats(_plain("Round"), _same),
        "floor": _on_floats(_plain("Floor"), _same),
        "ceil": _on_floats(_plain("Ceil"), _same),
        "trunc": _on_floats(_plain("Trunc"), _same),
        "isnan": _on_floats(_plain("IsNaN"), _constantly(False)),
        "isinf": _on_floats(_plain("IsInf"), _constantly(False)),
        "isfinite": _on_floats(_is_finite, _constantly(True)),
        "maximum": _by_kind(_plain("Max"), _plain("Or")),
        "minimum": _by_kind(_plain("Min"), _plain("And")),
        "fmax": _picks("Max", "maximum"),
        "fmin": _picks("Min", "minimum"),
        "equal": _comparison("Equal"),
        "not_equal": _not_equal,
        "less": _comparison("Less"),
        "less_equal": _comparison("LessOrEqual"),
        "greater": _comparison("Greater"),
        "greater_equal": _comparison("GreaterOrEqual"),
        "logical_and": _logical("And"),
        "logical_or": _logical("Or"),
        "logical_xor": _logical("Xor"),
        "logical_not": _logical("Not"),
        "bitwise_and": _by_kind(_plain("BitwiseAnd"), _plain("And")),
        "bitwise_or": _by_kind(_plain("BitwiseOr"), _plain("Or")),
        "bitwise_xor": _by_kind(_plain("BitwiseXor"), _plain("Xor")),
        "invert": _by_kind(_plain("BitwiseNot"), _plain("Not")),
        "left_shift": _shift("LEFT"),
        "right_shift": _shift("RIGHT"),
    }
)
"""By numpy's name of the ufunc."""
