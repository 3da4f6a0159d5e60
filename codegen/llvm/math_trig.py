"""sin, cos and tan, for float64; float32 reduces its argument in float64 and evaluates polynomials in float32.

Arguments are reduced by multiples of pi/2 as in fdlibm (Cody and Waite with three parts, Ng 1993); large ones by
multiplication with as many bits of 2/pi as they need (Payne and Hanek, "Radian reduction for trigonometric
functions", 1983), one lane at a time. Polynomials are minimax fits by the Remez exchange.
"""

from __future__ import annotations

import dataclasses

from polycomp.codegen.llvm.builder import ModuleBuilder
from polycomp.codegen.llvm.lanewise import lanewise
from polycomp.codegen.llvm.num import Num, mul_add, polynomial
from polycomp.dtypes import DType

_TWO_OVER_PI = 0.6366197723675814
_PIO2_1 = 1.57079632673412561417e00  # first 33 bits of pi/2
_PIO2_2 = 6.07710050630396597660e-11  # next 33 bits
_PIO2_3 = 2.02226624879595063154e-21  # the rest
_MODERATE = 1.0e6  # up to here products of the parts with the multiple are exact
_MAGIC = 1.5 * 2.0**52
_REDUCE = "polycomp.reduce_by_half_pi"

_SIN64 = (
    -0.16666666666666632, 0.00833333333332238, -0.00019841269829776962, 2.7557313680298766e-06,
    -2.5050756175297034e-08, 1.5896677088858035e-10,
)  # fmt: skip
_COS64 = (
    0.0416666666666666, -0.0013888888888874112, 2.4801587289469414e-05, -2.75573143473637e-07, 2.087572245336117e-09,
    -1.135959893463722e-11,
)  # fmt: skip
_SIN32 = (-0.16666654916775395, 0.008332176250412566, -0.00019517021019664743)
_COS32 = (0.04166664681561035, -0.0013887364843333115, 2.4438126990599536e-05)


@dataclasses.dataclass(frozen=True)
class _Angle:
    """``quadrant * pi/2 + high + low`` with abs(high) <= pi/4; the quadrant is an int64 modulo 4."""

    high: Num
    low: Num
    quadrant: Num


def _reduce(x: Num) -> _Angle:
    """Reduce a float64 of any size."""
    b = x.b
    near = _reduce_moderate(x)
    is_large = x.abs() > _MODERATE
    before, large, done = b.label, b.new_label("large"), b.new_label("reduced")
    b.branch(is_large.any(), large, done)
    b.start(large)
    with b.scope():
        _define_payne_hanek(b.module)
        far = lanewise(b, _REDUCE, (x,), 3)
        chosen = [is_large.select(remote, moderate) for remote, moderate in zip(far, near, strict=True)]
    end = b.label
    b.jump(done)
    b.start(done)
    high, low, turns = (new.merged(end, old, before) for new, old in zip(chosen, near, strict=True))
    return _Angle(high, low, (turns + _MAGIC).bits(DType.INT64))


def _reduce_moderate(x: Num) -> tuple[Num, Num, Num]:
    """High and low part of the reduced angle and the multiple of pi/2 that was taken off."""
    n = mul_add(x, _TWO_OVER_PI, _MAGIC) - _MAGIC
    r = x - n * _PIO2_1
    second = n * _PIO2_2
    r1 = r - second
    correction = n * _PIO2_3 - ((r - r1) - second)
    high = r1 - correction
    return high, (r1 - high) - correction, n


def _sine(angle: _Angle) -> Num:
    """fdlibm's __kernel_sin."""
    x, y = angle.high, angle.low
    z = x * x
    v = z * x
    r = polynomial(z, _SIN64[1:])
    return x - (mul_add(z, y * 0.5 - v * r, -y) - v * _SIN64[0])


def _cosine(angle: _Angle) -> Num:
    """fdlibm's __kernel_cos."""
    x, y = angle.high, angle.low
    z = x * x
    half = z * 0.5
    w = 1.0 - half
    return w + (((1.0 - w) - half) + mul_add(z * z, polynomial(z, _COS64), -(x * y)))


def _sine_cosine(x: Num) -> tuple[Num, Num, Num]:
    """sin and cos of the reduced angle, in ``x``'s dtype, and the quadrant as an integer of its width."""
    if x.dtype is DType.FLOAT64:
        angle = _reduce(x)
        return _sine(angle), _cosine(angle), angle.quadrant
    angle = _reduce(x.convert(DType.FLOAT64))
    r = angle.high.convert(DType.FLOAT32)
    z = r * r
    sine = mul_add(r * z, polynomial(z, _SIN32), r)
    cosine = mul_add(z * z, polynomial(z, _COS32), mul_add(z, -0.5, 1.0))
    return sine, cosine, angle.quadrant.cast(DType.INT32)


def _pick(x: Num, quarter: int) -> Num:
    """sin(x + quarter * pi/2)."""
    sine, cosine, quadrant = _sine_cosine(x)
    quadrant = quadrant + quarter
    chosen = (quadrant & 1).eq(0).select(sine, cosine)
    sign = (quadrant & 2) << (x.dtype.bits - 2)
    result = (chosen.bits(sign.dtype) ^ sign).bits(x.dtype)
    return (x.abs() < float("inf")).select(result, x - x)


def sin(x: Num) -> Num:
    return (x.abs() < 2.0**-40).select(x, _pick(x, 0))


def cos(x: Num) -> Num:
    return _pick(x, 1)


def tan(x: Num) -> Num:
    """sin / cos of the reduced angle, or -cos / sin in odd quadrants (float64)."""
    sine, cosine, quadrant = _sine_cosine(x)
    even = (quadrant & 1).eq(0)
    result = even.select(sine, -cosine) / even.select(cosine, sine)
    result = (x.abs() < 2.0**-40).select(x, result)
    return (x.abs() < float("inf")).select(result, x - x)


# The bits of 2/pi as a little-endian integer floor(2/pi * 2**_TABLE_BITS), with zeros above for windows that begin
# before its first bit. A window of 192 bits keeps 137 bits after the leading quotient bits of any float64.
_TABLE_BITS = 1184
_WINDOW = 192
_TWO_OVER_PI_BITS = int(
    "A2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E006492EEA09D1921CFE1DEB1C"
    "B129A73EE88235F52EBB4484E99C7026B45F7E413991D639835339F49C845F8BBDF9283B1FF897FFDE05980FEF2F118B5A0A6D1F"
    "6D367ECF27CB09B74F463F669E5FEA2D7527BAC7EBE5F17B3D0739F78A5292EA6BFB5FB11F8D5D0856033046",
    16,
)


def _define_payne_hanek(module: ModuleBuilder) -> None:
    """``void reduce(double x, ptr high, ptr low, ptr turns)`` for 2**19 < abs(x) < infinity."""
    if _REDUCE in module:
        return
    table = _TWO_OVER_PI_BITS.to_bytes(_TABLE_BITS // 8, "little") + bytes(40)
    module.declare("llvm.umin.i64", "i64", "i64, i64")
    module.declare("llvm.umax.i64", "i64", "i64, i64")
    module.declare("llvm.ctlz.i192", "i192", "i192, i1 immarg")
    values = ", ".join(f"i8 {byte}" for byte in table)
    module.define(
        f"{_REDUCE}.table",
        f"@{_REDUCE}.table = internal unnamed_addr constant [{len(table)} x i8] [{values}], align 8",
    )
    module.define(_REDUCE, _PAYNE_HANEK.replace("$lowest", str(_TABLE_BITS + 2 - _WINDOW)))


# x = m * 2**e; the window's unit is 2**-(e + 190), so that m * window modulo 2**192 is x * 2/pi modulo 4 with 190
# bits after the point. The fraction is made signed, normalised to 64 + 64 bits, and multiplied by pi/2.
_PAYNE_HANEK = """
define internal void @polycomp.reduce_by_half_pi(double %x, ptr %high, ptr %low, ptr %turns) nounwind noinline {
  %bits = bitcast double %x to i64
  %biased = lshr i64 %bits, 52
  %exponent = and i64 %biased, 2047
  %finite = call i64 @llvm.umin.i64(i64 %exponent, i64 2046)
  %large = call i64 @llvm.umax.i64(i64 %finite, i64 1042)
  %e = sub i64 %large, 1075
  %fraction = and i64 %bits, 4503599627370495
  %m = or i64 %fraction, 4503599627370496
  %position = sub i64 $lowest, %e
  %byte = lshr i64 %position, 3
  %shift = and i64 %position, 7
  %where = getelementptr i8, ptr @polycomp.reduce_by_half_pi.table, i64 %byte
  %loaded = load i256, ptr %where, align 1
  %wide.shift = zext i64 %shift to i256
  %shifted = lshr i256 %loaded, %wide.shift
  %window = trunc i256 %shifted to i192
  %wide.m = zext i64 %m to i192
  %product = mul i192 %window, %wide.m
  %whole = lshr i192 %product, 190
  %quarter = trunc i192 %whole to i64
  %signed = shl i192 %product, 2
  %top = lshr i192 %signed, 128
  %top64 = trunc i192 %top to i64
  %sign = ashr i64 %top64, 63
  %up = lshr i64 %top64, 63
  %n = add i64 %quarter, %up
  %wide.sign = sext i64 %sign to i192
  %magnitude = xor i192 %signed, %wide.sign
  %zeros = call i192 @llvm.ctlz.i192(i192 %magnitude, i1 false)
  %normal = shl i192 %magnitude, %zeros
  %first = lshr i192 %normal, 139
  %first64 = trunc i192 %first to i64
  %second = lshr i192 %normal, 86
  %second64.all = trunc i192 %second to i64
  %second64 = and i64 %second64.all, 9007199254740991
  %first.float = uitofp i64 %first64 to double
  %second.float = uitofp i64 %second64 to double
  %zeros64 = trunc i192 %zeros to i64
  %scale.exponent = sub i64 970, %zeros64
  %scale.bits = shl i64 %scale.exponent, 52
  %scale = bitcast i64 %scale.bits to double
  %a = fmul double %first.float, %scale
  %b.unscaled = fmul double %second.float, %scale
  %b = fmul double %b.unscaled, 0x3CA0000000000000
  %h.bits = bitcast double %a to i64
  %h.cut = and i64 %h.bits, -134217728
  %a.high = bitcast i64 %h.cut to double
  %a.low.exact = fsub double %a, %a.high
  %p1 = fmul double %a.high, 0x3FF921FB50000000
  %p2 = fmul double %a.low.exact, 0x3FF921FB50000000
  %p3 = fmul double %a, 0x3E5110B4611A6263
  %p4 = fmul double %b, 0x3FF921FB54442D18
  %s1 = fadd double %p2, %p3
  %s2 = fadd double %s1, %p4
  %y0 = fadd double %p1, %s2
  %d = fsub double %p1, %y0
  %y1 = fadd double %d, %s2
  %flip.sign = and i64 %sign, -9223372036854775808
  %x.sign = and i64 %bits, -9223372036854775808
  %flip = xor i64 %flip.sign, %x.sign
  %y0.bits = bitcast double %y0 to i64
  %y1.bits = bitcast double %y1 to i64
  %y0.signed = xor i64 %y0.bits, %flip
  %y1.signed = xor i64 %y1.bits, %flip
  %negative = icmp slt i64 %bits, 0
  %n.negated = sub i64 0, %n
  %n.signed = select i1 %negative, i64 %n.negated, i64 %n
  %turns.float = sitofp i64 %n.signed to double
  store i64 %y0.signed, ptr %high, align 8
  store i64 %y1.signed, ptr %low, align 8
  store double %turns.float, ptr %turns, align 8
  ret void
}"""
