"""Exponential functions and those made of them, for float32 and float64, without branches.

exp follows the classical scheme (Cody and Waite, "Software Manual for the Elementary Functions", 1980): subtract the
nearest multiple of ln 2 in two parts, a polynomial on what remains, then scale by a power of two. Polynomials are
minimax fits by the Remez exchange in 34-digit arithmetic.
"""

from __future__ import annotations

import dataclasses

from polycomp.codegen.llvm.builder import Value
from polycomp.codegen.llvm.num import Num, clamp, clamp_above, horner, mul_add, polynomial
from polycomp.dtypes import DType

_LOG2_E = 1.4426950408889634


@dataclasses.dataclass(frozen=True)
class _Format:
    """Constants of one float type. ``magic``: adding it leaves a rounded integer in the low bits."""

    integer: DType
    mantissa_bits: int
    bias: int
    magic: float
    ln2_high: float  # with enough zeros at the end that products with exponents are exact
    ln2_low: float
    lowest: float  # exp of less is 0
    highest: float  # exp of more is infinite
    exp: tuple[float, ...]  # (e^r - 1 - r) / r^2 for |r| <= ln(2)/2
    expm1: tuple[float, ...]


_FORMATS = {
    DType.FLOAT32: _Format(
        DType.INT32, 23, 127, 1.5 * 2.0**23, 0.693359375, -2.12194440054690583e-4, -104.0, 89.0,
        (0.5000000062601572, 0.1666654170156664, 0.04166627895338543, 0.008366756783223222, 0.0013946692624693256),
        (0.500000004711806, 0.16666666820161288, 0.04166635146863718, 0.00833327227889229, 0.0013941275887467252,
         0.00019914617397095763),
    ),
    DType.FLOAT64: _Format(
        DType.INT64, 52, 1023, 1.5 * 2.0**52, 6.93147180369123816490e-01, 1.90821492927058770002e-10, -746.0, 710.0,
        (0.5, 0.16666666666666677, 0.041666666666666706, 0.008333333333321374, 0.0013888888888866236,
         0.00019841269886853146, 2.4801587361700095e-05, 2.755724340848507e-06, 2.7557241800341297e-07,
         2.5109337961246187e-08, 2.0924736727443437e-09),
        (0.5, 0.16666666666666677, 0.041666666666666706, 0.008333333333321374, 0.0013888888888866236,
         0.00019841269886853146, 2.4801587361700095e-05, 2.755724340848507e-06, 2.7557241800341297e-07,
         2.5109337961246187e-08, 2.0924736727443437e-09),
    ),
}  # fmt: skip

_TANH = (-0.333332839608343, 0.13331492130574382, -0.053743560353386614, 0.020650771306574913, -0.005717234151000681)
_ERF32_END = 3.88  # erf of more is 1
_ERF32 = (
    0.364449948, -0.181921288, 0.135298118, -0.109882012, 0.0907488316, -0.073533237, 0.0572325364, -0.0422951877,
    0.0292395893, -0.0186104402, 0.0114896242, -0.00728716003, 0.00367934722, -0.00103088049, 0.000630165276,
    -0.000763398712, 0.000287386705,
)  # fmt: skip
_ERF64_SMALL = (
    0.12837916709551256, -0.3761263890318375, 0.11283791670954885, -0.02686617064507787, 0.005223977624828389,
    -0.0008548326981423463, 0.00012055331132892126, -1.4925595770909825e-05, 1.6461008460771013e-06,
    -1.635039606926364e-07, 1.466032781931662e-08, -1.137495257919263e-09, 5.960680339728099e-11,
)  # fmt: skip
_ERFC64 = (
    -4.184120227549129e-07, 0.5642081409566401, 0.5638305596336483, 0.2859579615345631, -0.30527786488653963,
    -0.6611430792088429, 0.3520315426457374, -3.6019650308614275, 28.464043703420593, -86.9441954814701,
    152.73811886621436, -171.28953163725757, 122.88167670942683, -51.97440974124481, 9.936360303555386,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Reduced:
    """``x == n * ln 2 + r``; ``shifted`` holds n in its low bits."""

    n: Num
    shifted: Num
    r: Num

    def exponent(self) -> Num:
        """n as an integer."""
        form = _FORMATS[self.r.dtype]
        return self.shifted.bits(form.integer) - self.shifted.like(form.magic).bits(form.integer)


def _reduce(x: Num, low: Num | None = None) -> _Reduced:
    """Split ``x`` (plus a correction ``low``)."""
    form = _FORMATS[x.dtype]
    shifted = mul_add(x, _LOG2_E, form.magic)
    n = shifted - form.magic
    r = mul_add(n, -form.ln2_low, mul_add(n, -form.ln2_high, x))
    return _Reduced(n, shifted, r if low is None else r + low)


def power_of_two(exponent: Num, like: Num) -> Num:
    """``2**exponent`` for an integer in the range of normal numbers."""
    form = _FORMATS[like.dtype]
    return ((exponent + form.bias) << form.mantissa_bits).bits(like.dtype)


def _scale(p: Num, reduced: _Reduced) -> Num:
    """``p * 2**n``, also where that is denormal or infinite."""
    if _scales_natively(p):
        return _scale_native(p, reduced.n)
    n = reduced.exponent()
    half = n >> 1
    return p * power_of_two(half, p) * power_of_two(n - half, p)


def _scales_natively(p: Num) -> bool:
    return bool(p.lanes) and p.lanes * p.dtype.bits % 512 == 0 and p.b.module.has("avx512f")


def _scale_native(p: Num, n: Num, kept: Num | None = None) -> Num:
    """AVX-512 scales by a power of two in one instruction, and makes lanes 0 that are not ``kept``."""
    b, dtype = p.b, p.dtype
    lanes = 512 // dtype.bits
    kind, name = f"<{lanes} x {'float' if dtype is DType.FLOAT32 else 'double'}>", "ps" if lanes == 16 else "pd"
    intrinsic = f"llvm.x86.avx512.mask.scalef.{name}.512"
    b.module.declare(intrinsic, kind, f"{kind}, {kind}, {kind}, i{lanes}, i32 immarg")
    parts = []
    for first in range(0, p.lanes, lanes):
        x, y = (_lanes_of(p, v, first, lanes) for v in (p.value, n.value))
        mask = "-1" if kept is None else _mask(p, _lanes_of(p, kept.value, first, lanes), lanes)
        operands = f"{kind} {x}, {kind} {y}, {kind} zeroinitializer, i{lanes} {mask}, i32 4"
        parts.append(Value(b.pure(f"call {kind} @{intrinsic}({operands})"), dtype, lanes))
    while len(parts) > 1:
        parts = [_joined(p, low, high) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return Num(b, parts[0])


def _mask(p: Num, lanes_kept: str, lanes: int) -> str:
    return p.b.pure(f"bitcast <{lanes} x i1> {lanes_kept} to i{lanes}")


def _lanes_of(p: Num, vector: Value, first: int, lanes: int) -> str:
    if vector.lanes == lanes:
        return vector.ref
    picks = ", ".join(f"i32 {first + i}" for i in range(lanes))
    return p.b.pure(f"shufflevector {vector}, {vector.type} poison, <{lanes} x i32> <{picks}>")


def _joined(p: Num, low: Value, high: Value) -> Value:
    lanes = low.lanes + high.lanes
    picks = ", ".join(f"i32 {i}" for i in range(lanes))
    return Value(p.b.pure(f"shufflevector {low}, {high}, <{lanes} x i32> <{picks}>"), p.dtype, lanes)


def exp(x: Num) -> Num:
    return exp_sum(x, None)


def exp_sum(x: Num, low: Num | None) -> Num:
    """``exp(x + low)`` for a small correction ``low``; an exact 0 where ``x`` is so low (a softmax's mask) that it
    underflows, which costs a hundred cycles when it is computed.

    AVX-512 leaves such lanes out. Elsewhere a factor of 1 avoids the underflow.
    """
    form = _FORMATS[x.dtype]
    if _scales_natively(x):
        reduced = _reduce(clamp_above(x, form.highest), low)
        return _scale_native(_exp_polynomial(reduced.r), reduced.n, ~(x <= form.lowest))
    reduced = _reduce(clamp(x, form.lowest, form.highest), low)
    tiny = x <= form.lowest
    safe = dataclasses.replace(reduced, shifted=tiny.select(x.like(form.magic), reduced.shifted))
    return tiny.select(x.like(0.0), _scale(_exp_polynomial(reduced.r), safe))


def _exp_reduced(reduced: _Reduced) -> Num:
    return _scale(_exp_polynomial(reduced.r), reduced)


def _exp_polynomial(r: Num) -> Num:
    """exp where ``abs(r) <= ln(2) / 2``; the short polynomial of float32 is not later for being one chain."""
    coefficients = _FORMATS[r.dtype].exp
    if r.dtype is DType.FLOAT32:
        return horner(r, (1.0, 1.0, *coefficients))
    return mul_add(r * r, polynomial(r, coefficients), r) + 1.0


def _exp_moderate(x: Num) -> Num:
    """exp where the result is a normal number."""
    reduced = _reduce(x)
    return _exp_polynomial(reduced.r) * power_of_two(reduced.exponent(), x)


def exp2(x: Num) -> Num:
    form = _FORMATS[x.dtype]
    x = clamp(x, form.lowest * 1.45, form.highest * 1.45)
    shifted = x + form.magic
    n = shifted - form.magic
    return _exp_reduced(_Reduced(n, shifted, (x - n) * 0.6931471805599453))


def _quarter_expm1(x: Num) -> Num:
    """``expm1(x) / 4``: scaled down so that neither it nor a power of two overflows before sinh does."""
    reduced = _reduce(clamp(x, -60.0, 710.6 if x.dtype is DType.FLOAT64 else 89.5))
    small = mul_add(reduced.r * reduced.r, polynomial(reduced.r, _FORMATS[x.dtype].expm1), reduced.r)
    scale = power_of_two(reduced.exponent() - 2, x)
    return mul_add(small, scale, scale - 0.25)


def expm1(x: Num) -> Num:
    """Accurate near 0, where the scale is 1 and the polynomial is all there is."""
    return (x.abs() < 2.0**-54).select(x, _quarter_expm1(x) * 4.0)


def tanh(x: Num) -> Num:
    """By exp of twice the argument; near 0 by a polynomial (float32) or by expm1 (float64)."""
    magnitude = x.abs()
    if x.dtype is DType.FLOAT32:
        large = 1.0 - 2.0 / (exp(magnitude + magnitude) + 1.0)
        square = magnitude * magnitude
        small = mul_add(magnitude * square, polynomial(square, _TANH), magnitude)
        return (magnitude < 0.625).select(small, large).copysign(x)
    e = expm1(clamp(magnitude + magnitude, 0.0, 60.0))
    return (e / (e + 2.0)).copysign(x)


def sigmoid(x: Num) -> Num:
    """``1 / (1 + exp(-x))`` without overflow on either side."""
    e = exp(-x.abs())
    return (x < 0.0).select(e, x.like(1.0)) / (e + 1.0)


def sinh(x: Num) -> Num:
    """``(t + t / (t + 1)) / 2`` for t = expm1(abs(x)), in halves so that nothing overflows early."""
    half = _quarter_expm1(x.abs()) * 2.0
    total = half + half / (half + half + 1.0)
    total = (half < 2.0**70).select(total, half)
    return (x.abs() < 2.0**-30).select(x, total.copysign(x))


def cosh(x: Num) -> Num:
    half = _quarter_expm1(x.abs()) * 2.0 + 0.5
    return half + 0.25 / half


def erf(x: Num) -> Num:
    """float32: x times one polynomial, in x^2 moved to [-1, 1], where its coefficients are small; no branches.

    Horner's scheme suits it: rounding errors stay below 4 units in the last place, and what it is applied to is many
    vectors, which are in flight at once.

    float64: x + x times a polynomial below 1; above it 1 minus exp(-x^2) times one. The form is Shepherd and
    Laframboise, "Chebyshev approximation of (1+2x) exp(x^2) erfc x" (1981), with an own fit in 1 / (1 + x).
    """
    if x.dtype is DType.FLOAT32:
        x = clamp(x, -_ERF32_END, _ERF32_END)
        return x * horner(mul_add(x * x, 2 / _ERF32_END**2, -1.0), _ERF32)
    magnitude = x.abs()
    small = mul_add(x, polynomial(x * x, _ERF64_SMALL), x)
    limited = clamp(magnitude, 0.0, 6.5)
    large = 1.0 - _exp_moderate(-(limited * limited)) * polynomial(1.0 / (limited + 1.0), _ERFC64)
    return (magnitude >= 1.0).select(large.copysign(x), small)
