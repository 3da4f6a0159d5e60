"""Operations on values, as CUDA C: what each operation of ``polycomp.expr`` is called for each family of types."""

from __future__ import annotations

from collections.abc import Mapping

from polycomp.codegen.cuda import code
from polycomp.codegen.cuda.code import BOOL, DOUBLE, FLOAT, INT, LONG, Code, call, converted, infix, literal
from polycomp.dtypes import DType
from polycomp.errors import CompileError

_UNSIGNED_LONG = "unsigned long long"
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_BITWISE = {"and": "&", "or": "|", "xor": "^"}
_LOGICAL = {"and": "&&", "or": "||", "xor": "!=", "mul": "&&", "add": "||", "min": "&&", "max": "||"}

# CUDA's functions of doubles; those of floats have an f at the end.
_MATH: Mapping[str, str] = {
    "exp": "exp", "expm1": "expm1", "exp2": "exp2", "log": "log", "log1p": "log1p", "log2": "log2", "sqrt": "sqrt",
    "erf": "erf", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "abs": "fabs",
    "floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc", "pow": "pow", "atan2": "atan2",
    "fmod": "fmod", "truncmod": "fmod",
}  # fmt: skip
_FLOAT_FUNCTIONS: Mapping[str, str] = {
    "sign": "op_sign", "sigmoid": "op_sigmoid", "floormod": "op_floormod", "min": "pc_min", "max": "pc_max",
}  # fmt: skip
_INTEGER_FUNCTIONS: Mapping[str, str] = {
    "min": "pc_min", "max": "pc_max", "truncdiv": "pc_truncdiv", "div": "pc_truncdiv", "truncmod": "pc_truncmod",
    "fmod": "pc_truncmod", "floordiv": "pc_floordiv", "floormod": "pc_floormod",
}  # fmt: skip
# These must be told the type: C has made ints of what is narrower.
_INTEGER_TEMPLATES: Mapping[str, str] = {
    "neg": "op_negate", "abs": "op_abs", "sign": "op_sign", "pow": "op_pow", "shl": "pc_shl", "shr": "pc_shr",
}  # fmt: skip
_IDENTITY_OF_INTEGERS = frozenset(["floor", "ceil", "round", "trunc"])
_EXACT_ON_HALVES = frozenset(
    ["neg", "abs", "sign", "floor", "ceil", "round", "trunc", "min", "max", "fmod", "truncmod"]
)
_REDUCE_AS = {"sum": "add", "prod": "mul"}
_POWERS = {2.0: "op_square", 3.0: "op_cube"}


def math(name: str, kind: str, *operands: Code) -> Code:
    """One of CUDA's functions, that of the operands' type."""
    return call(f"{name}f" if kind == FLOAT else name, *operands, kind=kind)


def rounded(x: Code, dtype: DType) -> Code:
    """``x`` as a value of ``dtype``: what is computed for 16 bits in 32 is rounded after each step."""
    if not x.rounds:
        return x
    return call("op_round_half" if dtype is DType.FLOAT16 else "op_round_bfloat16", x, kind=FLOAT)


def to_bits(x: Code, dtype: DType) -> Code:
    """A value of 16 bits, rounded or not, as it is in memory."""
    return call("pc_to_half" if dtype is DType.FLOAT16 else "pc_to_bfloat16", x, kind="unsigned short")


def to_memory(x: Code, dtype: DType) -> Code:
    """A value as it is stored."""
    return to_bits(x, dtype) if dtype.is_half else x


def from_bits(x: Code, dtype: DType) -> Code:
    """A value of 16 bits from what is in memory."""
    return call("pc_from_half" if dtype is DType.FLOAT16 else "pc_from_bfloat16", x, kind=FLOAT)


def unary(op: str, dtype: DType, x: Code) -> Code:
    """``op`` of ``expr.UNARY_OPS`` on a value of ``dtype``. Of 16 bits, the result may have to be rounded."""
    if op.startswith("is"):
        return _classified(op, dtype, x)
    if dtype is DType.BOOL:
        return code.negated(x) if op == "not" else x
    if not dtype.is_float:
        return _integer_unary(op, dtype, x)
    result = _float_unary(op, x)
    return _unrounded(result) if dtype.is_half and op not in _EXACT_ON_HALVES else result


def _unrounded(x: Code) -> Code:
    return Code(x.text, x.kind, x.strength, rounds=True)


def _float_unary(op: str, x: Code) -> Code:
    kind = x.kind
    if op in _MATH:
        return math(_MATH[op], kind, x)
    if op in _FLOAT_FUNCTIONS:
        return call(_FLOAT_FUNCTIONS[op], x, kind=kind)
    if op == "neg":
        return code.prefix("-", x, kind)
    one = Code("1.0f" if kind == FLOAT else "1.0", kind)
    if op == "reciprocal":
        return infix("/", one, x, kind)
    if op == "rsqrt":
        return infix("/", one, math("sqrt", kind, x), kind)
    raise CompileError(f"the operation {op!r} on floats cannot be expressed in CUDA C")


def _classified(op: str, dtype: DType, x: Code) -> Code:
    if not dtype.is_float:
        return literal(False, DType.BOOL)
    if op == "isnan":
        return call("isnan", x, kind=BOOL)
    infinity = literal(float("inf") if op == "isinf_pos" else float("-inf"), _of_kind(x.kind))
    return infix("==", x, infinity, BOOL)


def _of_kind(kind: str) -> DType:
    return DType.FLOAT64 if kind == DOUBLE else DType.FLOAT32


def _integer_unary(op: str, dtype: DType, x: Code) -> Code:
    kind = code.value_type(dtype)
    if op in _IDENTITY_OF_INTEGERS or (op == "abs" and not dtype.is_signed):
        return x
    if op in _INTEGER_TEMPLATES:
        return call(f"{_INTEGER_TEMPLATES[op]}<{kind}>", x, kind=kind)
    if op == "not":
        return _narrowed(code.prefix("~", _widened(x, dtype), kind), dtype)
    if op == "reciprocal":
        return binary("truncdiv", dtype, literal(1, dtype), x)
    return cast(_float_unary(op, converted(DOUBLE, x)), DType.FLOAT64, dtype)


def binary(op: str, dtype: DType, x: Code, y: Code, fits: bool = False) -> Code:
    """``op`` of ``expr.BINARY_OPS`` on two values of ``dtype``. ``fits`` says that no integer leaves its type."""
    if dtype is DType.BOOL:
        if op not in _LOGICAL:
            raise CompileError(f"the operation {op!r} on bool cannot be expressed in CUDA C")
        return infix(_LOGICAL[op], x, y, BOOL)
    if not dtype.is_float:
        return _integer_binary(op, dtype, x, y, fits)
    result = _float_binary(op, x, y)
    return _unrounded(result) if dtype.is_half and op not in _EXACT_ON_HALVES else result


def _float_binary(op: str, x: Code, y: Code) -> Code:
    kind = x.kind
    if op in _ARITHMETIC:
        return infix(_ARITHMETIC[op], x, y, kind)
    if op in _MATH:
        return math(_MATH[op], kind, x, y)
    if op in _FLOAT_FUNCTIONS:
        return call(_FLOAT_FUNCTIONS[op], x, y, kind=kind)
    if op in ("floordiv", "truncdiv"):
        return math("floor" if op == "floordiv" else "trunc", kind, infix("/", x, y, kind))
    raise CompileError(f"the operation {op!r} on floats cannot be expressed in CUDA C")


def constant_power(x: Code, exponent: float) -> Code | None:
    """``x ** exponent`` by multiplications where that is as accurate as pow."""
    if exponent in _POWERS:
        return call(_POWERS[exponent], x, kind=x.kind)
    if exponent == -1.0:
        return _float_unary("reciprocal", x)
    return x if exponent == 1.0 else None


def _integer_binary(op: str, dtype: DType, x: Code, y: Code, fits: bool) -> Code:
    if op in ("add", "sub", "mul"):
        return _wrapping(_ARITHMETIC[op], dtype, x, y, fits)
    kind = code.value_type(dtype)
    if op in _BITWISE:
        return infix(_BITWISE[op], _widened(x, dtype), y, _promoted(dtype))
    if op in _INTEGER_TEMPLATES:
        return _narrowed(call(f"{_INTEGER_TEMPLATES[op]}<{kind}>", x, y, kind=kind), dtype)
    if op in _INTEGER_FUNCTIONS:
        return _narrowed(call(_INTEGER_FUNCTIONS[op], _widened(x, dtype), y, kind=kind), dtype)
    raise CompileError(f"the operation {op!r} on {dtype.value} cannot be expressed in CUDA C")


def _promoted(dtype: DType) -> str:
    """The C type of arithmetic on values of an integer type."""
    return code.value_type(dtype) if dtype.bits > 16 else INT


def _widened(x: Code, dtype: DType) -> Code:
    """An int64 that is an ``int`` as what it stands for: the other operand follows."""
    return converted(LONG, x) if dtype is DType.INT64 else x


def _narrowed(x: Code, dtype: DType) -> Code:
    """Without what C's promotion to int added."""
    return converted(code.value_type(dtype), Code(x.text, _promoted(dtype), x.strength))


def _wrapping(operator: str, dtype: DType, x: Code, y: Code, fits: bool) -> Code:
    """Sums and products modulo the type's range; signed ones may not overflow in C."""
    kind = code.value_type(dtype)
    if not dtype.is_signed and dtype.bits > 16:
        return infix(operator, converted(kind, x), converted(kind, y), kind)
    if fits:
        return infix(operator, _widened(x, dtype), y, _promoted(dtype))
    unsigned = _UNSIGNED_LONG if dtype.bits > 32 else "unsigned"
    return converted(kind, infix(operator, converted(unsigned, x), converted(unsigned, y), unsigned))


def compare(op: str, x: Code, y: Code) -> Code:
    """``x op y``; ordered except that ``ne`` holds for NaN."""
    return infix(_COMPARISONS[op], x, y, BOOL)


def cast(x: Code, source: DType, to: DType) -> Code:
    """``x`` of type ``source`` converted to ``to`` as C does; a float beyond an integer's range gives any integer."""
    if source is to:
        return x
    if to.is_half:
        return _to_half(x, source, to)
    if source.is_half:
        x, source = rounded(x, source), DType.FLOAT32
    kind = code.value_type(to)
    if to is DType.BOOL:
        return infix("!=", x, literal(0, source), BOOL)
    if source.is_float and to.is_integer:
        return _truncated(x, to)
    return converted(kind, x)


def _to_half(x: Code, source: DType, to: DType) -> Code:
    """To a value of 16 bits that has yet to be rounded; from more bits than a float has, it is rounded at once."""
    if source.is_half:
        return _unrounded(rounded(x, source))
    if source is DType.FLOAT64 or (source.is_integer and source.bits > 16):
        return from_bits(to_bits(converted(DOUBLE, x), to), to)
    return _unrounded(converted(FLOAT, x))


def _truncated(x: Code, to: DType) -> Code:
    """Through a wider integer where there is one, so that numbers below 0 wrap around."""
    if to is DType.UINT64:
        return call("op_to_unsigned", x, kind=_UNSIGNED_LONG)
    wide = INT if to.bits <= 16 or to is DType.INT32 else LONG
    return converted(code.value_type(to), converted(wide, x))


def reduction(op: str, dtype: DType, accumulator: Code, value: Code) -> Code:
    """One step of ``op`` of REDUCE_OPS. An extremum looks for a NaN in ``value``, which is there first; and that is
    evaluated in any case, which C leaves out of the right side of ``&&``."""
    if op in ("max", "min") or dtype is DType.BOOL:
        return binary(op, dtype, value, accumulator)
    return binary(_REDUCE_AS.get(op, op), dtype, accumulator, value)
