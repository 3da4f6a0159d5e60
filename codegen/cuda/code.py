"""Pieces of CUDA C: expressions that know their type and how strongly they bind, types of elements, literals."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping

import numpy as np

from polycomp.dtypes import DType

ATOM, UNARY, PRODUCT, SUM, SHIFT, ORDER, EQUALITY, BITAND, BITXOR, BITOR, AND, OR, CHOICE = range(13, 0, -1)
"""How strongly C's operators bind, the strongest first."""

INT, LONG, BOOL, FLOAT, DOUBLE = "int", "long long", "bool", "float", "double"

_MEMORY: Mapping[DType, str] = {
    DType.FLOAT16: "unsigned short", DType.BFLOAT16: "unsigned short", DType.FLOAT32: FLOAT, DType.FLOAT64: DOUBLE,
    DType.INT8: "signed char", DType.INT16: "short", DType.INT32: INT, DType.INT64: LONG, DType.UINT8: "unsigned char",
    DType.UINT16: "unsigned short", DType.UINT32: "unsigned", DType.UINT64: "unsigned long long",
    DType.BOOL: "unsigned char",
}  # fmt: skip
_IN_REGISTERS: Mapping[DType, str] = {**_MEMORY, DType.FLOAT16: FLOAT, DType.BFLOAT16: FLOAT, DType.BOOL: BOOL}

_OPERATORS = {
    "*": PRODUCT, "/": PRODUCT, "%": PRODUCT, "+": SUM, "-": SUM, "<": ORDER, "<=": ORDER, ">": ORDER, ">=": ORDER,
    "==": EQUALITY, "!=": EQUALITY, "&": BITAND, "^": BITXOR, "|": BITOR, "&&": AND, "||": OR,
}  # fmt: skip
_ASSOCIATIVE = frozenset(["&", "|", "^", "&&", "||"])  # floats' + and * are not


@dataclasses.dataclass(frozen=True)
class Code:
    """An expression of the C type ``kind``, in which the operator that binds least binds as ``strength`` says.

    ``rounds``, of a value of 16 bits in a float, says that it has yet to be rounded to them.
    """

    text: str
    kind: str
    strength: int = ATOM
    rounds: bool = False

    def within(self, strength: int) -> str:
        """The text as an operand of what binds with ``strength``."""
        return self.text if self.strength >= strength else f"({self.text})"


def memory_type(dtype: DType) -> str:
    """The C type of an element in memory."""
    return _MEMORY[dtype]


def value_type(dtype: DType) -> str:
    """The C type of a value: floats of 16 bits are computed in 32."""
    return _IN_REGISTERS[dtype]


def infix(operator: str, left: Code, right: Code, kind: str) -> Code:
    """``left operator right``, which gives a value of type ``kind``."""
    strength = _OPERATORS[operator]
    right_strength = strength if operator in _ASSOCIATIVE else strength + 1
    return Code(f"{left.within(strength)} {operator} {right.within(right_strength)}", kind, strength)


def prefix(operator: str, operand: Code, kind: str) -> Code:
    """``operator operand``: one that is itself signed gets parentheses, as ``--`` is another operator."""
    return Code(f"{operator}{operand.within(ATOM)}", kind, UNARY)


def call(function: str, *operands: Code, kind: str) -> Code:
    return Code(f"{function}({', '.join(operand.text for operand in operands)})", kind)


def converted(kind: str, operand: Code) -> Code:
    """``operand`` as a value of the C type ``kind``."""
    return operand if operand.kind == kind else Code(f"({kind}){operand.within(UNARY)}", kind, UNARY)


def chosen(condition: Code, yes: Code, no: Code, kind: str) -> Code:
    """``condition ? yes : no``, which evaluates only one of the two."""
    return Code(f"{condition.within(OR)} ? {yes.within(OR)} : {no.within(CHOICE)}", kind, CHOICE)


def negated(condition: Code) -> Code:
    """``!condition``."""
    return Code(f"!{condition.within(ATOM)}", BOOL, UNARY)


def conjunction(conditions: list[Code]) -> Code:
    """All of at least one condition."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = infix("&&", result, condition, BOOL)
    return result


def literal(value: float | bool, dtype: DType) -> Code:
    """A constant, exactly as ``dtype`` has it."""
    if dtype is DType.BOOL:
        return Code("true" if value else "false", BOOL)
    if dtype.is_float:
        return _float_literal(float(value), dtype)
    bits = dtype.bits
    wrapped = int(value) % (1 << bits)
    if dtype.is_signed and wrapped >> (bits - 1):
        wrapped -= 1 << bits
    return integer(wrapped, value_type(dtype))


def half_bits(value: float, dtype: DType) -> Code:
    """A constant of 16 bits as it is in memory."""
    with np.errstate(over="ignore"):
        return Code(f"0x{int(np.asarray(value).astype(dtype.numpy).view(np.uint16)):04x}", INT)


def integer(value: int, kind: str = INT) -> Code:
    """An integer of the C type ``kind``; those of less than 32 bits are ints in C."""
    suffix = {"unsigned": "u", LONG: "ll", "unsigned long long": "ull"}.get(kind, "")
    if value in (-(2**31), -(2**63)):  # the number without its sign would not fit
        return Code(f"({value + 1}{suffix} - 1)", kind)
    return Code(f"{value}{suffix}", kind, ATOM if value >= 0 else UNARY)


def _float_literal(value: float, dtype: DType) -> Code:
    """The shortest decimal number that is read back as the same float."""
    if dtype is DType.FLOAT64:
        return _number(repr(value), value, DOUBLE, struct.unpack("<q", struct.pack("<d", value))[0])
    with np.errstate(over="ignore"):
        single = np.asarray(value, dtype.numpy).astype(np.float32)[()]
    return _number(f"{single!s}f", float(single), FLOAT, int(single.view(np.int32)))


def _number(text: str, value: float, kind: str, bits: int) -> Code:
    if math.isfinite(value):
        negative = math.copysign(1.0, value) < 0
        return Code(text, kind, UNARY if negative else ATOM)
    width = 16 if kind == DOUBLE else 8
    pattern = f"0x{bits % (1 << 4 * width):0{width}x}"
    return Code(f"__longlong_as_double({pattern}ll)" if kind == DOUBLE else f"__int_as_float({pattern})", kind)
