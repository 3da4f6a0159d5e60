"""Math functions as LLVM IR functions of the module: one per function, element type and number of lanes.

Their text is made once per process and inlined by LLVM where they are called. Nothing calls a math library.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from polycomp.codegen.llvm import math_arc, math_exp, math_log, math_power, math_trig
from polycomp.codegen.llvm.builder import FunctionBuilder, ModuleBuilder, Value, suffix, type_name
from polycomp.codegen.llvm.num import Num, wrap
from polycomp.dtypes import DType
from polycomp.target import Target

_BOTH: Mapping[str, Callable[..., Num]] = {
    "exp": math_exp.exp, "exp2": math_exp.exp2, "expm1": math_exp.expm1, "tanh": math_exp.tanh,
    "sigmoid": math_exp.sigmoid, "erf": math_exp.erf, "log": math_log.log, "log2": math_log.log2,
    "log1p": math_log.log1p, "sin": math_trig.sin, "cos": math_trig.cos,
}  # fmt: skip
_DOUBLE: Mapping[str, Callable[..., Num]] = {
    "sinh": math_exp.sinh, "cosh": math_exp.cosh, "asinh": math_log.asinh, "acosh": math_log.acosh,
    "atanh": math_log.atanh, "tan": math_trig.tan, "asin": math_arc.asin, "acos": math_arc.acos,
    "atan": math_arc.atan, "atan2": math_arc.atan2, "pow": math_power.pow_double, "fmod": math_power.fmod,
}  # fmt: skip
"""Float32 goes through float64 for these."""

_LONG = frozenset(["sin", "cos", "tan", "pow", "fmod"])  # inlined only where LLVM finds it worth it
_INTRINSICS = {"floor": "floor", "ceil": "ceil", "round": "roundeven", "trunc": "trunc"}


def call(b: FunctionBuilder, name: str, *arguments: Value) -> Value:
    """``name`` of float32, float64 or (pow) integer operands that have the same dtype and lanes."""
    dtype, lanes = arguments[0].dtype, arguments[0].lanes
    symbol = _symbol(name, dtype, lanes)
    if symbol not in b.module:
        for part, text in _function(name, dtype, lanes, len(arguments), b.module.target).items():
            b.module.define(part, text)
    operands = ", ".join(str(argument) for argument in arguments)
    return Value(b.pure(f"call {type_name(dtype, lanes)} @{symbol}({operands})"), dtype, lanes)


def _symbol(name: str, dtype: DType, lanes: int) -> str:
    sign = "" if dtype.is_signed else ".unsigned"
    return f"polycomp.{name}.{suffix(dtype, lanes)}{sign}"


@functools.cache
def _function(name: str, dtype: DType, lanes: int, arity: int, target: Target) -> Mapping[str, str]:
    """The function and all that it needs, by name."""
    module = ModuleBuilder(target)
    b = FunctionBuilder(module)
    operands = [wrap(b, Value(f"%x{i}", dtype, lanes)) for i in range(arity)]
    result = _emit(name, operands)
    b.void(f"ret {result.value}")
    kind, symbol = type_name(dtype, lanes), _symbol(name, dtype, lanes)
    parameters = ", ".join(str(x.value) for x in operands)
    attributes = "nounwind" if name in _LONG else "nounwind alwaysinline"
    module.define(symbol, f"define internal {kind} @{symbol}({parameters}) {attributes} {{\n{b.body()}\n}}")
    return module.parts


def _emit(name: str, operands: list[Num]) -> Num:
    dtype = operands[0].dtype
    if not dtype.is_float:
        return math_power.pow_integer(*operands)
    if name in _BOTH:
        return _BOTH[name](*operands)
    if dtype is DType.FLOAT64:
        return _DOUBLE[name](*operands)
    if name == "pow":
        return math_power.pow_single(*operands)
    return _DOUBLE[name](*(x.convert(DType.FLOAT64) for x in operands)).convert(dtype)


def rounded(b: FunctionBuilder, op: str, x: Value) -> Value:
    """``floor``, ``ceil``, ``trunc``, or ``round`` to nearest even, of float32 or float64."""
    if b.module.rounds:
        name = f"llvm.{_INTRINSICS[op]}.{suffix(x.dtype, x.lanes)}"
        return Value(b.call_intrinsic(name, x.type, str(x)), x.dtype, x.lanes)
    return _round_without_instruction(op, wrap(b, x)).copysign(wrap(b, x)).value


def _round_without_instruction(op: str, x: Num) -> Num:
    truncated = x.truncate()
    match op:
        case "floor":
            return (truncated > x).select(truncated - 1.0, truncated)
        case "ceil":
            return (truncated < x).select(truncated + 1.0, truncated)
        case "round":
            return x.nearest()
    return truncated
