"""Inverse trigonometric functions for float64 (float32 goes through it), without branches.

Range reductions as in fdlibm (asin, acos) and Cephes (atan); polynomials are minimax fits by the Remez exchange.
"""

from __future__ import annotations

from polycomp.codegen.llvm.num import Num, mul_add, polynomial

_PI = 3.141592653589793
_PI_LOW = 1.2246467991473532e-16
_HALF_PI, _HALF_PI_LOW = _PI / 2, _PI_LOW / 2
_QUARTER_PI, _QUARTER_PI_LOW = _PI / 4, _PI_LOW / 4

_ASIN = (
    0.16666666666666763, 0.07499999999970405, 0.04464285717500841, 0.03038194268825841, 0.02237221554459108,
    0.017351601966005176, 0.013980940914773036, 0.011397931191415814, 0.0107857188522514, 0.0036859117194785107,
    0.021756914310007903, -0.021068461741250728, 0.03267163510714109,
)  # fmt: skip
_ATAN = (
    -0.333333333333332, 0.199999999999542, -0.1428571428025789, 0.11111110786527478, -0.09090897846036872,
    0.07692061786064482, -0.06663121883962826, 0.05848018687161794, -0.050398852207684156, 0.038079235931934914,
    -0.01792319160954159,
)  # fmt: skip


def _asin_core(x: Num) -> tuple[Num, Num]:
    """Whether abs(x) < 1/2, and asin of abs(x) there, of sqrt((1 - abs(x)) / 2) elsewhere. NaN beyond 1."""
    a = x.abs()
    is_small = a < 0.5
    z = is_small.select(a * a, (1.0 - a) * 0.5)
    s = is_small.select(a, z.sqrt())
    return is_small, mul_add(s * z, polynomial(z, _ASIN), s)


def asin(x: Num) -> Num:
    """Above 1/2: pi/2 - 2 asin(sqrt((1 - x) / 2))."""
    is_small, t = _asin_core(x)
    large = _HALF_PI - (t + t - _HALF_PI_LOW)
    return is_small.select(t, large).copysign(x)


def acos(x: Num) -> Num:
    is_small, t = _asin_core(x)
    middle = _HALF_PI - (t.copysign(x) - _HALF_PI_LOW)
    doubled = t + t
    outer = (x < 0.0).select(_PI - (doubled - _PI_LOW), doubled)
    return is_small.select(middle, outer)


def _atan_positive(numerator: Num, denominator: Num) -> Num:
    """atan(numerator / denominator) for operands >= 0: atan(t) = pi/4 + atan((t - 1) / (t + 1)), or from pi/2."""
    is_large = numerator > denominator * 2.414213562373095
    is_middle = numerator > denominator * 0.4142135623730950
    top = is_large.select(-denominator, is_middle.select(numerator - denominator, numerator))
    bottom = is_large.select(numerator, is_middle.select(numerator + denominator, denominator))
    t = top / bottom
    z = t * t
    tail = mul_add(t * z, polynomial(z, _ATAN), _offset(is_large, is_middle, _HALF_PI_LOW, _QUARTER_PI_LOW, t))
    return _offset(is_large, is_middle, _HALF_PI, _QUARTER_PI, t) + (t + tail)


def _offset(is_large: Num, is_middle: Num, large: float, middle: float, like: Num) -> Num:
    return is_large.select(like.like(large), is_middle.select(like.like(middle), like.like(0.0)))


def atan(x: Num) -> Num:
    a = x.abs()
    return _atan_positive(a, a.like(1.0)).copysign(x)


def atan2(y: Num, x: Num) -> Num:
    """The angle of the point (x, y): atan of the ratio, whose operands are halved where their sum would overflow."""
    numerator, denominator = y.abs(), x.abs()
    infinite = numerator.eq(float("inf"))
    both = infinite & denominator.eq(float("inf"))
    huge = (numerator > 2.0**1020) | (denominator > 2.0**1020)
    factor = huge.select(x.like(0.125), x.like(1.0))
    numerator, denominator = numerator * factor, denominator * factor
    numerator, denominator = both.select(x.like(1.0), numerator), both.select(x.like(1.0), denominator)
    angle = _atan_positive(numerator, denominator)
    angle = (numerator.eq(0.0) & denominator.eq(0.0)).select(x.like(0.0), angle)
    is_left = (x.like(1.0).copysign(x)) < 0.0
    angle = is_left.select(_PI - (angle - _PI_LOW), angle)
    return (x.is_nan() | y.is_nan()).select(x + y, angle.copysign(y))
