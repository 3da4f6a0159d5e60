"""A small notation for straight-line numeric code: emitted values with Python's operators.

``Num`` arithmetic is never contracted behind one's back, so that compensated algorithms stay exact; a fused
multiply-add is asked for with :func:`mul_add`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.codegen.llvm.builder import FunctionBuilder, Value, constant, suffix, type_name
from polycomp.dtypes import DType


@dataclasses.dataclass(frozen=True, eq=False)
class Num:
    """A value together with the function it is emitted into. Python numbers become constants of the same dtype."""

    b: FunctionBuilder
    value: Value

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @property
    def lanes(self) -> int:
        return self.value.lanes

    def like(self, number: float, dtype: DType | None = None) -> Num:
        """A constant with as many lanes."""
        return Num(self.b, constant(number, dtype or self.dtype, self.lanes))

    def _operand(self, other: Num | float) -> Num:
        return other if isinstance(other, Num) else self.like(other)

    def _made(self, text: str, dtype: DType | None = None) -> Num:
        return Num(self.b, Value(self.b.pure(text), dtype or self.dtype, self.lanes))

    def _arithmetic(self, op: str, other: Num | float, swap: bool = False) -> Num:
        x, y = (self._operand(other), self) if swap else (self, self._operand(other))
        return self._made(f"{'f' if self.dtype.is_float else ''}{op} {x.value}, {y.value.ref}")

    def __add__(self, other: Num | float) -> Num:
        return self._arithmetic("add", other)

    def __radd__(self, other: Num | float) -> Num:
        return self._arithmetic("add", other, swap=True)

    def __sub__(self, other: Num | float) -> Num:
        return self._arithmetic("sub", other)

    def __rsub__(self, other: Num | float) -> Num:
        return self._arithmetic("sub", other, swap=True)

    def __mul__(self, other: Num | float) -> Num:
        return self._arithmetic("mul", other)

    def __rmul__(self, other: Num | float) -> Num:
        return self._arithmetic("mul", other, swap=True)

    def __truediv__(self, other: Num | float) -> Num:
        return self._arithmetic("div", other)

    def __rtruediv__(self, other: Num | float) -> Num:
        return self._arithmetic("div", other, swap=True)

    def _bitwise(self, op: str, other: Num | float) -> Num:
        return self._made(f"{op} {self.value}, {self._operand(other).value.ref}")

    def __and__(self, other: Num | float) -> Num:
        return self._bitwise("and", other)

    def __or__(self, other: Num | float) -> Num:
        return self._bitwise("or", other)

    def __xor__(self, other: Num | float) -> Num:
        return self._bitwise("xor", other)

    def __invert__(self) -> Num:
        return self._bitwise("xor", True if self.dtype is DType.BOOL else -1)

    def __lshift__(self, amount: Num | int) -> Num:
        return self._bitwise("shl", amount)

    def __rshift__(self, amount: Num | int) -> Num:
        return self._bitwise("ashr" if self.dtype.is_signed else "lshr", amount)

    def __neg__(self) -> Num:
        return self._made(f"fneg {self.value}") if self.dtype.is_float else self.like(0) - self

    def _compare(self, op: str, other: Num | float) -> Num:
        prefix = ("u" if op == "ne" else "o") if self.dtype.is_float else "" if op in ("eq", "ne") else "s"
        instruction = "fcmp" if self.dtype.is_float else "icmp"
        return self._made(f"{instruction} {prefix}{op} {self.value}, {self._operand(other).value.ref}", DType.BOOL)

    def __lt__(self, other: Num | float) -> Num:
        return self._compare("lt", other)

    def __le__(self, other: Num | float) -> Num:
        return self._compare("le", other)

    def __gt__(self, other: Num | float) -> Num:
        return self._compare("gt", other)

    def __ge__(self, other: Num | float) -> Num:
        return self._compare("ge", other)

    def eq(self, other: Num | float) -> Num:
        return self._compare("eq", other)

    def ne(self, other: Num | float) -> Num:
        """Not equal; holds when either is NaN."""
        return self._compare("ne", other)

    def is_nan(self) -> Num:
        return self.ne(self)

    def select(self, on_true: Num | float, on_false: Num | float) -> Num:
        """``on_true`` where this bool holds; at least one side is a Num."""
        known = on_true if isinstance(on_true, Num) else on_false
        assert isinstance(known, Num)
        x, y = known._operand(on_true), known._operand(on_false)
        return x._made(f"select {self.value}, {x.value}, {y.value}")

    def any(self) -> str:
        """An i1: whether this bool holds in any lane."""
        return self.b.any_lane(self.value)

    def bits(self, dtype: DType) -> Num:
        """The same bits as another type of the same width."""
        return self._made(f"bitcast {self.value} to {type_name(dtype, self.lanes)}", dtype)

    def cast(self, dtype: DType) -> Num:
        """An integer made wider (zeros above for bool and unsigned) or narrower."""
        if dtype.bits == self.dtype.bits and self.dtype is not DType.BOOL:
            return Num(self.b, Value(self.value.ref, dtype, self.lanes))
        narrower = self.dtype is not DType.BOOL and dtype.bits < self.dtype.bits
        instruction = "trunc" if narrower else "sext" if self.dtype.is_signed else "zext"
        return self._made(f"{instruction} {self.value} to {type_name(dtype, self.lanes)}", dtype)

    def convert(self, dtype: DType) -> Num:
        """A float of another width."""
        if dtype is self.dtype:
            return self
        instruction = "fpext" if dtype.bits > self.dtype.bits else "fptrunc"
        return self._made(f"{instruction} {self.value} to {type_name(dtype, self.lanes)}", dtype)

    def _intrinsic(self, name: str, *others: Num) -> Num:
        operands = (str(x.value) for x in (self, *others))
        full_name = f"llvm.{name}.{suffix(self.dtype, self.lanes)}"
        return Num(self.b, Value(self.b.call_intrinsic(full_name, self.value.type, *operands), self.dtype, self.lanes))

    def abs(self) -> Num:
        return self._intrinsic("fabs")

    def sqrt(self) -> Num:
        return self._intrinsic("sqrt")

    def copysign(self, sign: Num) -> Num:
        return self._intrinsic("copysign", sign)

    def truncate(self) -> Num:
        """A float rounded to zero."""
        if self.b.module.rounds:
            return self._intrinsic("trunc")
        nearest, magnitude = self.nearest().abs(), self.abs()
        return (nearest > magnitude).select(nearest - 1.0, nearest).copysign(self)

    def nearest(self) -> Num:
        """A float rounded to the nearest integer, ties to even: adding 2**mantissa bits rounds in the last place."""
        limit = 2.0**52 if self.dtype is DType.FLOAT64 else 2.0**23
        magnitude = self.abs()
        return (magnitude < limit).select(((magnitude + limit) - limit).copysign(self), self)

    def merged(self, label: str, other: Num, other_label: str) -> Num:
        """This value when coming from the block ``label``, else ``other``."""
        ref = self.b.phi(self.value.type, (self.value.ref, label), (other.value.ref, other_label))
        return Num(self.b, Value(ref, self.dtype, self.lanes))


def wrap(b: FunctionBuilder, value: Value) -> Num:
    return Num(b, value)


def mul_add(x: Num, y: Num | float, z: Num | float) -> Num:
    """``x * y + z``, rounded once where the machine can."""
    return x._intrinsic("fmuladd", x._operand(y), x._operand(z))


def clamp(x: Num, low: float, high: float) -> Num:
    """``x`` limited to ``[low, high]``; NaN stays NaN. Two instructions on x86."""
    return clamp_above((x.like(low) > x).select(x.like(low), x), high)


def clamp_above(x: Num, high: float) -> Num:
    """``x``, but not above ``high``; NaN stays NaN."""
    return (x.like(high) < x).select(x.like(high), x)


def polynomial(x: Num, coefficients: Sequence[float]) -> Num:
    """``sum(c[i] * x**i)`` by Estrin's scheme, whose short dependence chains keep the multipliers busy."""
    terms: list[Num | float] = list(coefficients)
    power = x
    while len(terms) > 1:
        pairs: list[Num | float] = [
            mul_add(power, terms[i + 1], terms[i]) if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)
        ]
        terms = pairs
        if len(terms) > 1:
            power = power * power
    result = terms[0]
    return result if isinstance(result, Num) else x.like(result)


def horner(x: Num, coefficients: Sequence[float]) -> Num:
    """``sum(c[i] * x**i)`` by Horner's scheme: the fewest instructions, in one chain."""
    result = x.like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = mul_add(result, x, coefficient)
    return result


def has_fma(b: FunctionBuilder) -> bool:
    return not b.module.is_x86 or b.module.has("fma") or b.module.has("avx512f")


def two_sum(a: Num, c: Num) -> tuple[Num, Num]:
    """``a + c`` as a rounded sum and its exact error, for ``|a| >= |c|`` or a == 0 (Dekker, 1971)."""
    total = a + c
    return total, c - (total - a)


def two_product(x: Num, y: Num) -> tuple[Num, Num]:
    """``x * y`` as a rounded product and its exact error; with Veltkamp's splitting where there is no FMA."""
    product = x * y
    if has_fma(x.b):
        return product, x._intrinsic("fma", y, -product)
    (x_high, x_low), (y_high, y_low) = _halves(x), _halves(y)
    error = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    return product, error


def _halves(x: Num) -> tuple[Num, Num]:
    """``x`` as two numbers of half its precision (Veltkamp, 1968)."""
    factor = 2.0**27 + 1 if x.dtype is DType.FLOAT64 else 2.0**12 + 1
    scaled = x * factor
    high = scaled - (scaled - x)
    return high, x - high
