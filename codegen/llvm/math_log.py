"""Logarithms and the inverse hyperbolic functions, for float32 and float64, without branches.

log writes x as 2**k * m with m in [sqrt(1/2), sqrt(2)) and uses, in float64, the atanh series as fdlibm's e_log.c does
(Ng, 1993), in float32 a polynomial in m - 1. Polynomials are minimax fits by the Remez exchange.
"""

from __future__ import annotations

import dataclasses

from polycomp.codegen.llvm.num import Num, mul_add, polynomial, two_product, two_sum
from polycomp.dtypes import DType

_LOG2_E = 1.4426950408889634
_LN2 = 0.6931471805599453
_LN2_HIGH = {DType.FLOAT32: 0.693359375, DType.FLOAT64: 6.93147180369123816490e-01}
_LN2_LOW = {DType.FLOAT32: -2.12194440054690583e-4, DType.FLOAT64: 1.90821492927058770002e-10}
_LOG64 = (
    0.6666666666666734, 0.39999999999413827, 0.2857142874264072, 0.2222219854191786, 0.1818356618833566,
    0.15313997508608818, 0.14796529502367337,
)  # fmt: skip
_LOG32 = (
    0.3333331043274611, -0.24999986312167757, 0.20002228373512207, -0.1666926766942388, 0.14218617419164692,
    -0.1238401760413807, 0.11873042722359256, -0.1179191929495045, 0.0691769772327443,
)  # fmt: skip
_ATANH_TAIL = (
    0.3999999999999998, 0.2857142857144501, 0.2222222221755469, 0.18181818868599794, 0.15384556961610235,
    0.13336314714297504, 0.11674860835331315, 0.11988745672687061,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Split:
    """``x == 2**k * (1 + f)``; ``k`` as a float."""

    k: Num
    f: Num


def _split(x: Num) -> _Split:
    """For positive finite x. Integer arithmetic on the bits, as musl's log does."""
    wide = x.dtype is DType.FLOAT64
    integer, mantissa, base = (DType.INT64, 52, 0x3FE6A09E00000000) if wide else (DType.INT32, 23, 0x3F3504F3)
    smallest, lift = (2.0**-1022, 54) if wide else (2.0**-126, 25)
    denormal = x < smallest
    bits = denormal.select(x * 2.0**lift, x).bits(integer) - base
    exponent = (bits >> mantissa) - denormal.select(x.like(lift, integer), x.like(0, integer))
    m = ((bits & ((1 << mantissa) - 1)) + base).bits(x.dtype)
    return _Split(_to_float(exponent, x), m - 1.0)


def _to_float(integer: Num, like: Num) -> Num:
    """A small integer as a float, by putting it into the low bits of one (AVX2 converts no 64-bit integers)."""
    magic = like.like(1.5 * 2.0**52 if like.dtype is DType.FLOAT64 else 1.5 * 2.0**23)
    return (integer + magic.bits(integer.dtype)).bits(like.dtype) - magic


def _log1p_small(f: Num) -> tuple[Num, Num]:
    """``log(1 + f)`` as ``f + rest`` for 1 + f in [sqrt(1/2), sqrt(2))."""
    if f.dtype is DType.FLOAT32:
        square = f * f
        return f, mul_add(square * f, polynomial(f, _LOG32), square * -0.5)
    s = f / (f + 2.0)
    z = s * s
    half_square = f * f * 0.5
    return f, s * mul_add(z, polynomial(z, _LOG64), half_square) - half_square


def _special(x: Num, result: Num) -> Num:
    """The limits of a logarithm: minus infinity at 0, infinity at infinity, NaN below 0 and for NaN."""
    result = x.eq(float("inf")).select(x, result)
    result = x.eq(0.0).select(x.like(float("-inf")), result)
    return (x >= 0.0).select(result, x.like(float("nan")))


def log(x: Num) -> Num:
    split = _split(x)
    f, rest = _log1p_small(split.f)
    low = mul_add(split.k, _LN2_LOW[x.dtype], rest)
    return _special(x, mul_add(split.k, _LN2_HIGH[x.dtype], low + f))


def log2(x: Num) -> Num:
    """Exact for powers of two."""
    split = _split(x)
    f, rest = _log1p_small(split.f)
    return _special(x, mul_add(f + rest, _LOG2_E, split.k))


def log1p(x: Num) -> Num:
    """``log(u) * x / (u - 1)`` for u = 1 + x rounded, whose error the quotient repairs (Kahan)."""
    u = x + 1.0
    quotient = x / (u - 1.0)
    result = log(u) * quotient
    result = u.eq(1.0).select(x, result)
    return u.eq(float("inf")).select(u, result)


def asinh(x: Num) -> Num:
    """``log1p(a + a^2 / (1 + sqrt(a^2 + 1)))``; for large a, log(2 a)."""
    a = x.abs()
    large = a > 2.0**28
    square = a * a
    moderate = a + square / ((square + 1.0).sqrt() + 1.0)
    result = log1p(large.select(a - 1.0, moderate)) + large.select(x.like(_LN2), x.like(0.0))
    return result.copysign(x)


def acosh(x: Num) -> Num:
    """``log1p(t + sqrt(2 t + t^2))`` for t = x - 1; for large x, log(2 x)."""
    large = x > 2.0**28
    t = x - 1.0
    moderate = t + (t * t + (t + t)).sqrt()
    result = log1p(large.select(t, moderate)) + large.select(x.like(_LN2), x.like(0.0))
    return (x >= 1.0).select(result, x.like(float("nan")))


def atanh(x: Num) -> Num:
    a = x.abs()
    return (log1p((a + a) / (1.0 - a)) * 0.5).copysign(x)


def log_double(x: Num) -> tuple[Num, Num]:
    """log of a positive float64 as an unevaluated sum of two, with about 2**-65 relative error (for pow).

    2 atanh(s) for s = f / (2 + f), the leading terms of the series in double-double arithmetic (Dekker, 1971).
    """
    split = _split(x)
    f = split.f
    u, u_low = two_sum(f.like(2.0), f)
    inverse = 1.0 / u
    s = f * inverse
    product, error = two_product(s, u)
    s_low = (((f - product) - error) - s * u_low) * inverse
    z, z_low = two_product(s, s)
    z_low = mul_add(s + s, s_low, z_low)
    a, a_low = two_sum(f.like(2.0 / 3.0), z * polynomial(z, _ATANH_TAIL))
    a_low = a_low + 3.700743415417188e-17
    c, c_low = two_product(z, a)
    c_low = c_low + mul_add(z, a_low, z_low * a)
    d, d_low = two_sum(f.like(2.0), c)
    d_low = d_low + c_low
    high, low = two_product(s, d)
    low = low + mul_add(s, d_low, s_low * d)
    total, rest = two_sum(split.k * _LN2_HIGH[x.dtype], high)
    return two_sum(total, mul_add(split.k, _LN2_LOW[x.dtype], rest + low))
