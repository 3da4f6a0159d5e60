"""Scalar and vector operations on emitted values: arithmetic, comparisons, casts. No memory, no control flow."""

from __future__ import annotations

import math

from polycomp.codegen.llvm import half, math_call
from polycomp.codegen.llvm.builder import FunctionBuilder, Value, constant, suffix, type_name
from polycomp.dtypes import DType

_FLOAT_ARITHMETIC = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract", "div": "fdiv contract"}
_INT_ARITHMETIC = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_BOOL_ARITHMETIC = {"and": "and", "or": "or", "xor": "xor", "mul": "and", "add": "or", "min": "and", "max": "or"}
_FLOAT_PREDICATES = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_REDUCE_AS = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "and": "and", "or": "or"}


def binary(b: FunctionBuilder, op: str, left: Value, right: Value) -> Value:
    """``left op right`` with the meaning that ``expr.BINARY_OPS`` gives it; a scalar meets a vector in every lane."""
    lanes = max(left.lanes, right.lanes)
    x, y = b.splat(left, lanes), b.splat(right, lanes)
    if x.dtype.is_half:
        wide = binary(b, op, cast(b, x, DType.FLOAT32), cast(b, y, DType.FLOAT32))
        return cast(b, wide, x.dtype)
    if x.dtype.is_float:
        return _float_binary(b, op, x, y)
    if x.dtype is DType.BOOL:
        return Value(b.pure(f"{_BOOL_ARITHMETIC[op]} {x}, {y.ref}"), x.dtype, lanes)
    return _int_binary(b, op, x, y)


def _float_binary(b: FunctionBuilder, op: str, x: Value, y: Value) -> Value:
    if op in _FLOAT_ARITHMETIC:
        return Value(b.pure(f"{_FLOAT_ARITHMETIC[op]} {x}, {y.ref}"), x.dtype, x.lanes)
    if op in ("min", "max"):
        return _float_extremum(b, op, x, y)
    if op == "floordiv":
        return unary(b, "floor", binary(b, "div", x, y))
    if op == "truncdiv":
        return unary(b, "trunc", binary(b, "div", x, y))
    if op == "floormod":
        return _float_floormod(b, x, y)
    name = "fmod" if op == "truncmod" else op
    return math_call.call(b, name, x, y)


def _float_floormod(b: FunctionBuilder, x: Value, y: Value) -> Value:
    """The remainder with the divisor's sign: C's fmod, plus the divisor where the signs differ."""
    rest = math_call.call(b, "fmod", x, y)
    zero = constant(0, x.dtype, x.lanes)
    differs = b.conjunction(
        compare(b, "ne", rest, zero),
        Value(
            b.pure(
                f"xor {compare(b, 'lt', rest, zero)}, {compare(b, 'lt', y, zero).ref}",
            ),
            DType.BOOL,
            x.lanes,
        ),
    )
    assert differs is not None
    return select(b, differs, binary(b, "add", rest, y), rest)


def _float_extremum(b: FunctionBuilder, op: str, x: Value, y: Value) -> Value:
    """Minimum or maximum that is NaN when either operand is; of two zeros either one.

    On x86 that is one instruction and, unless an operand is known to be a number, a second step for a NaN in it.
    """
    name = f"llvm.{'maximum' if op == 'max' else 'minimum'}.{suffix(x.dtype, x.lanes)}"
    b.module.declare(name, x.type, f"{x.type}, {y.type}")
    return Value(b.pure(f"call nsz {x.type} @{name}({x}, {y})"), x.dtype, x.lanes)


def _int_binary(b: FunctionBuilder, op: str, x: Value, y: Value) -> Value:
    if op in _INT_ARITHMETIC:
        return Value(b.pure(f"{_INT_ARITHMETIC[op]} {x}, {y.ref}"), x.dtype, x.lanes)
    if op in ("min", "max"):
        name = f"llvm.{'s' if x.dtype.is_signed else 'u'}{op}.{suffix(x.dtype, x.lanes)}"
        return Value(b.call_intrinsic(name, x.type, str(x), str(y)), x.dtype, x.lanes)
    if op in ("shl", "shr"):
        return _shift(b, op, x, y)
    if op == "pow":
        return math_call.call(b, "pow", x, y)
    return _int_division(b, op, x, y)


def _shift(b: FunctionBuilder, op: str, x: Value, y: Value) -> Value:
    """A shift in which an amount of the width or more moves all bits out."""
    instruction = "shl" if op == "shl" else "ashr" if x.dtype.is_signed else "lshr"
    largest = constant(x.dtype.bits - 1, x.dtype, x.lanes)
    inside = Value(b.pure(f"icmp ule {y}, {largest.ref}"), DType.BOOL, x.lanes)
    amount = select(b, inside, y, largest)
    shifted = Value(b.pure(f"{instruction} {x}, {amount.ref}"), x.dtype, x.lanes)
    if instruction == "ashr":
        return shifted
    return select(b, inside, shifted, constant(0, x.dtype, x.lanes))


def _int_division(b: FunctionBuilder, op: str, x: Value, y: Value) -> Value:
    """Division or remainder that never traps: by 0 it gives 0 (as numpy does), and minimum / -1 wraps around."""
    dtype, lanes = x.dtype, x.lanes
    zero, one = constant(0, dtype, lanes), constant(1, dtype, lanes)
    by_zero = compare(b, "eq", y, zero)
    divisor = select(b, by_zero, one, y)
    if not dtype.is_signed:
        instruction = "udiv" if op.endswith("div") else "urem"
        result = Value(b.pure(f"{instruction} {x}, {divisor.ref}"), dtype, lanes)
        return select(b, by_zero, zero, result)
    negates = compare(b, "eq", y, constant(-1, dtype, lanes))
    divisor = select(b, negates, one, divisor)
    quotient = Value(b.pure(f"sdiv {x}, {divisor.ref}"), dtype, lanes)
    rest = Value(b.pure(f"srem {x}, {divisor.ref}"), dtype, lanes)
    if op.startswith("floor"):
        quotient, rest = _rounded_down(b, quotient, rest, divisor)
    if op.endswith("mod"):
        return select(b, by_zero, zero, rest)
    quotient = select(b, negates, Value(b.pure(f"sub {zero}, {x.ref}"), dtype, lanes), quotient)
    return select(b, by_zero, zero, quotient)


def _rounded_down(b: FunctionBuilder, quotient: Value, rest: Value, divisor: Value) -> tuple[Value, Value]:
    """From quotient and rest rounded to zero, those rounded down."""
    dtype, lanes = quotient.dtype, quotient.lanes
    zero = constant(0, dtype, lanes)
    signs = Value(b.pure(f"xor {rest}, {divisor.ref}"), dtype, lanes)
    low = b.conjunction(compare(b, "lt", signs, zero), compare(b, "ne", rest, zero))
    assert low is not None
    lowered = binary(b, "sub", quotient, constant(1, dtype, lanes))
    return select(b, low, lowered, quotient), select(b, low, binary(b, "add", rest, divisor), rest)


def compare(b: FunctionBuilder, op: str, left: Value, right: Value) -> Value:
    """``left op right`` as bool; ordered except that ``ne`` holds for NaN."""
    lanes = max(left.lanes, right.lanes)
    x, y = b.splat(left, lanes), b.splat(right, lanes)
    if x.dtype.is_half:
        x, y = cast(b, x, DType.FLOAT32), cast(b, y, DType.FLOAT32)
    if x.dtype.is_float:
        return Value(b.pure(f"fcmp {_FLOAT_PREDICATES[op]} {x}, {y.ref}"), DType.BOOL, lanes)
    sign = "" if op in ("eq", "ne") else "s" if x.dtype.is_signed else "u"
    return Value(b.pure(f"icmp {sign}{op} {x}, {y.ref}"), DType.BOOL, lanes)


def select(b: FunctionBuilder, condition: Value, on_true: Value, on_false: Value) -> Value:
    """``on_true`` where ``condition`` holds, else ``on_false``; both sides are evaluated."""
    if condition.ref in ("true", "false"):
        return on_true if condition.ref == "true" else on_false
    lanes = max(condition.lanes, on_true.lanes, on_false.lanes)
    x, y = b.splat(on_true, lanes), b.splat(on_false, lanes)
    return Value(b.pure(f"select {b.splat(condition, lanes) if lanes else condition}, {x}, {y}"), x.dtype, lanes)


def unary(b: FunctionBuilder, op: str, x: Value) -> Value:
    """``op`` of ``expr.UNARY_OPS`` on ``x``."""
    if x.dtype.is_half:
        wide = unary(b, op, cast(b, x, DType.FLOAT32))
        return wide if wide.dtype is DType.BOOL else cast(b, wide, x.dtype)
    if op.startswith("is"):
        return _classify(b, op, x)
    if op == "not":
        ones = constant(1 if x.dtype is DType.BOOL else -1, x.dtype, x.lanes)
        return Value(b.pure(f"xor {x}, {ones.ref}"), x.dtype, x.lanes)
    if x.dtype is DType.BOOL:
        return x
    if x.dtype.is_float:
        return _float_unary(b, op, x)
    return _int_unary(b, op, x)


def _classify(b: FunctionBuilder, op: str, x: Value) -> Value:
    if not x.dtype.is_float:
        return constant(False, DType.BOOL, x.lanes)
    if op == "isnan":
        return Value(b.pure(f"fcmp uno {x}, {x.ref}"), DType.BOOL, x.lanes)
    infinity = float("inf") if op == "isinf_pos" else float("-inf")
    return compare(b, "eq", x, constant(infinity, x.dtype, x.lanes))


def _float_unary(b: FunctionBuilder, op: str, x: Value) -> Value:
    one = constant(1, x.dtype, x.lanes)
    match op:
        case "neg":
            return Value(b.pure(f"fneg {x}"), x.dtype, x.lanes)
        case "abs" | "sqrt":
            name = f"llvm.{'fabs' if op == 'abs' else 'sqrt'}.{suffix(x.dtype, x.lanes)}"
            return Value(b.call_intrinsic(name, x.type, str(x)), x.dtype, x.lanes)
        case "reciprocal":
            return binary(b, "div", one, x)
        case "rsqrt":
            return binary(b, "div", one, _float_unary(b, "sqrt", x))
        case "sign":
            zero = constant(0, x.dtype, x.lanes)
            negative = select(b, compare(b, "lt", x, zero), constant(-1, x.dtype, x.lanes), x)
            return select(b, compare(b, "gt", x, zero), one, negative)
        case "floor" | "ceil" | "round" | "trunc":
            return math_call.rounded(b, op, x)
    return math_call.call(b, op, x)


def _int_unary(b: FunctionBuilder, op: str, x: Value) -> Value:
    zero, one = constant(0, x.dtype, x.lanes), constant(1, x.dtype, x.lanes)
    match op:
        case "neg":
            return Value(b.pure(f"sub {zero}, {x.ref}"), x.dtype, x.lanes)
        case "abs" if x.dtype.is_signed:
            name = f"llvm.abs.{suffix(x.dtype, x.lanes)}"
            b.module.declare(name, x.type, f"{x.type}, i1 immarg")
            return Value(b.pure(f"call {x.type} @{name}({x}, i1 false)"), x.dtype, x.lanes)
        case "sign":
            positive = select(b, compare(b, "gt", x, zero), one, zero)
            if not x.dtype.is_signed:
                return positive
            return select(b, compare(b, "lt", x, zero), constant(-1, x.dtype, x.lanes), positive)
        case "reciprocal":
            return binary(b, "truncdiv", one, x)
        case "abs" | "floor" | "ceil" | "round" | "trunc":
            return x
    return cast(b, unary(b, op, cast(b, x, DType.FLOAT64)), x.dtype)


def cast(b: FunctionBuilder, x: Value, dtype: DType) -> Value:
    """``x`` converted as C does; a float beyond an integer type's range gives some value of that type."""
    if x.dtype is dtype:
        return x
    if x.dtype.is_half or dtype.is_half:
        return _cast_half(b, x, dtype)
    if dtype is DType.BOOL:
        return compare(b, "ne", x, constant(0, x.dtype, x.lanes))
    if x.dtype.is_float:
        return (
            _convert(b, "fpext" if dtype.bits > x.dtype.bits else "fptrunc", x, dtype)
            if dtype.is_float
            else (_float_to_int(b, x, dtype))
        )
    if dtype.is_float:
        return _convert(b, "sitofp" if x.dtype.is_signed else "uitofp", x, dtype)
    if x.dtype is DType.BOOL or dtype.bits > x.dtype.bits:
        return _convert(b, "sext" if x.dtype.is_signed else "zext", x, dtype)
    if dtype.bits < x.dtype.bits:
        return _convert(b, "trunc", x, dtype)
    return Value(x.ref, dtype, x.lanes)


def _convert(b: FunctionBuilder, instruction: str, x: Value, dtype: DType) -> Value:
    return Value(b.pure(f"{instruction} {x} to {type_name(dtype, x.lanes)}"), dtype, x.lanes)


def _cast_half(b: FunctionBuilder, x: Value, dtype: DType) -> Value:
    if x.dtype.is_half:
        return cast(b, half.to_float(b, x), dtype)
    if x.dtype is DType.FLOAT64:
        return half.from_double(b, x, dtype)
    if x.dtype.is_integer and x.dtype.bits > 16:  # a rounding to float32 first could round twice
        return half.from_double(b, cast(b, x, DType.FLOAT64), dtype)
    return half.from_float(b, cast(b, x, DType.FLOAT32), dtype)


def _float_to_int(b: FunctionBuilder, x: Value, dtype: DType) -> Value:
    """Truncation to an integer, in a wider one where there is room, so that numbers below 0 wrap as on hardware.

    LLVM's result is poison out of range; freezing makes it whatever the machine gives instead.
    """
    if dtype is DType.UINT64:
        return _float_to_uint64(b, x)
    wide = DType.INT32 if dtype.bits <= 16 or dtype is DType.INT32 else DType.INT64
    return cast(b, _truncated(b, x, wide), dtype)


def _truncated(b: FunctionBuilder, x: Value, dtype: DType) -> Value:
    converted = _convert(b, "fptosi", x, dtype)
    return Value(b.pure(f"freeze {converted}"), dtype, x.lanes)


def _float_to_uint64(b: FunctionBuilder, x: Value) -> Value:
    top = constant(2.0**63, x.dtype, x.lanes)
    small = _truncated(b, x, DType.INT64)
    large = _truncated(b, binary(b, "sub", x, top), DType.INT64)
    flipped = binary(b, "xor", large, constant(-(2**63), DType.INT64, x.lanes))
    result = select(b, compare(b, "lt", x, top), small, flipped)
    return Value(result.ref, DType.UINT64, x.lanes)


def reduction(b: FunctionBuilder, op: str, accumulator: Value, value: Value) -> Value:
    """One step of ``op`` of REDUCE_OPS.

    An extremum looks for a NaN in ``value``, which is there before the accumulator. A sum's zero may have either sign:
    so the zero that it starts from costs no addition.
    """
    if op in ("max", "min"):
        return binary(b, op, value, accumulator)
    if op == "sum" and accumulator.dtype in (DType.FLOAT32, DType.FLOAT64):
        lanes = max(accumulator.lanes, value.lanes)
        x, y = b.splat(accumulator, lanes), b.splat(value, lanes)
        return Value(b.pure(f"fadd contract nsz {x}, {y.ref}"), x.dtype, lanes)
    return binary(b, _REDUCE_AS[op], accumulator, value)


def reduce_lanes(b: FunctionBuilder, op: str, x: Value) -> Value:
    """``op`` of REDUCE_OPS over the lanes of a vector, in any order."""
    if x.dtype.is_half:
        return cast(b, reduce_lanes(b, op, cast(b, x, DType.FLOAT32)), x.dtype)
    if x.lanes == 1 or (x.lanes & (x.lanes - 1)) != 0:
        return _reduce_one_by_one(b, op, x)
    if x.dtype.is_float and op in ("sum", "prod"):
        return _reduce_float(b, op, x)
    if x.dtype.is_float and op in ("max", "min") and b.module.is_x86:
        return _reduce_extremum(b, op, x)
    return _reduce_halves(b, op, x)


def _reduce_float(b: FunctionBuilder, op: str, x: Value) -> Value:
    scalar = type_name(x.dtype)
    start = constant(-0.0 if op == "sum" else 1, x.dtype)
    name = f"llvm.vector.reduce.{'fadd' if op == 'sum' else 'fmul'}.{suffix(x.dtype, x.lanes)}"
    b.module.declare(name, scalar, f"{scalar}, {x.type}")
    return Value(b.pure(f"call reassoc {scalar} @{name}({start}, {x})"), x.dtype)


def _reduce_halves(b: FunctionBuilder, op: str, x: Value) -> Value:
    while x.lanes > 1:
        half_lanes = x.lanes // 2
        low, high = (_lanes_of(b, x, first, half_lanes) for first in (0, half_lanes))
        x = reduction(b, op, low, high)
    return b.extract(x, 0)


def _reduce_extremum(b: FunctionBuilder, op: str, x: Value) -> Value:
    """The extremum of lanes as if there were no NaN, and a look for one in all lanes at once: on x86 both together
    take half as long as steps that mind NaN."""
    unordered = Value(b.pure(f"fcmp uno {x}, zeroinitializer"), DType.BOOL, x.lanes)
    any_nan = b.any_lane(unordered)
    while x.lanes > 1:
        low, high = (_lanes_of(b, x, first, x.lanes // 2) for first in (0, x.lanes // 2))
        x = select(b, compare(b, "gt" if op == "max" else "lt", low, high), low, high)
    result = b.extract(x, 0)
    return Value(b.pure(f"select i1 {any_nan}, {constant(math.nan, x.dtype)}, {result}"), x.dtype)


def _lanes_of(b: FunctionBuilder, x: Value, first: int, count: int) -> Value:
    picks = ", ".join(f"i32 {first + i}" for i in range(count))
    return Value(b.pure(f"shufflevector {x}, {x.type} poison, <{count} x i32> <{picks}>"), x.dtype, count)


def _reduce_one_by_one(b: FunctionBuilder, op: str, x: Value) -> Value:
    result = b.extract(x, 0)
    for lane in range(1, x.lanes):
        result = reduction(b, op, result, b.extract(x, lane))
    return result
