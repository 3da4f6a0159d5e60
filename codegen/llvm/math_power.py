"""pow for floats and integers, and the exact floating-point remainder."""

from __future__ import annotations

from polycomp.codegen.llvm.builder import ModuleBuilder, Value
from polycomp.codegen.llvm.lanewise import lanewise
from polycomp.codegen.llvm.math_exp import exp, exp_sum
from polycomp.codegen.llvm.math_log import log, log_double
from polycomp.codegen.llvm.num import Num, clamp, two_product
from polycomp.dtypes import DType

_REMAINDER = "polycomp.remainder"


def pow_single(x: Num, y: Num) -> Num:
    """pow for float32, in float64, where exp(y * log(x)) has bits to spare."""
    base, exponent = x.convert(DType.FLOAT64), y.convert(DType.FLOAT64)
    magnitude = exp(exponent * log(base.abs()))
    return _with_sign_and_limits(base, exponent, magnitude).convert(DType.FLOAT32)


def pow_double(x: Num, y: Num) -> Num:
    """pow for float64: the logarithm and its product with y carry about 12 more bits (as in fdlibm's e_pow.c)."""
    base = x.abs()
    is_regular = (base > 0.0) & (base < float("inf"))
    high, low = log_double(is_regular.select(base, base.like(1.0)))
    infinite = base.eq(0.0).select(base.like(float("-inf")), base.like(float("inf")))
    high = is_regular.select(high, infinite)
    limited = clamp(y, -(2.0**900), 2.0**900)  # splitting must not overflow; the result is 0, 1 or infinite anyway
    product, error = two_product(limited, high)
    error = error + limited * low
    error = (product.abs() < 800.0).select(error, error.like(0.0))
    return _with_sign_and_limits(x, y, exp_sum(product, error))


def _with_sign_and_limits(x: Num, y: Num, magnitude: Num) -> Num:
    """The cases of C's pow: the sign of odd powers, NaN for fractional powers of negative numbers, and the ones."""
    half = y * 0.5
    is_integer = y.truncate().eq(y)
    is_odd = is_integer & half.truncate().ne(half)
    result = (is_odd & (x.like(1.0).copysign(x) < 0.0)).select(-magnitude, magnitude)
    is_bad = (x < 0.0) & (x > float("-inf")) & ~is_integer
    result = is_bad.select(x.like(float("nan")), result)
    result = (x.abs().eq(1.0) & y.abs().eq(float("inf"))).select(x.like(1.0), result)
    result = (x.is_nan() | y.is_nan()).select(x + y, result)
    return (x.eq(1.0) | y.eq(0.0)).select(x.like(1.0), result)


def pow_integer(x: Num, y: Num) -> Num:
    """Integer power modulo 2**bits, by squaring; a negative exponent gives the power rounded to zero."""
    b, kind = x.b, x.value.type
    exponent = (y > 0).select(y, y.like(0)) if y.dtype.is_signed else y
    before, loop, done = b.label, b.new_label("square"), b.new_label("powered")
    b.jump(loop)
    b.start(loop)
    names = [f"%{part}{b.order()}" for part in ("base", "rest", "product")]
    for name, start in zip(names, (x, exponent, x.like(1)), strict=True):
        b.void(f"{name} = phi {kind} [ {start.value.ref}, %{before} ], [ {name}.next, %{loop} ]")
    base, rest, product = (Num(b, Value(name, x.dtype, x.lanes)) for name in names)
    b.void(f"{names[0]}.next = mul {base.value}, {base.value.ref}")
    b.void(f"{names[1]}.next = lshr {rest.value}, {x.like(1).value.ref}")
    odd = (rest & 1).ne(0)
    b.void(f"{names[2]}.next = select {odd.value}, {(product * base).value}, {product.value}")
    left = Num(b, Value(f"{names[1]}.next", x.dtype, x.lanes))
    b.branch(left.ne(0).any(), loop, done)
    b.start(done)
    result = Num(b, Value(f"{names[2]}.next", x.dtype, x.lanes))
    return _negative_power(x, y, result) if x.dtype.is_signed else result


def _negative_power(x: Num, y: Num, result: Num) -> Num:
    """1 / x**abs(y) in integers: 1, -1 or 0."""
    minus = (y & 1).ne(0).select(x, x.like(1))
    inverse = x.eq(1).select(x, x.eq(-1).select(minus, x.like(0)))
    return (y < 0).select(inverse, result)


def fmod(x: Num, y: Num) -> Num:
    """C's fmod, exact; one lane at a time."""
    _define_remainder(x.b.module)
    (result,) = lanewise(x.b, _REMAINDER, (x, y), 1)
    return result


def _define_remainder(module: ModuleBuilder) -> None:
    """``void remainder(double x, double y, ptr result)``: long division of mantissas, 11 bits at a time."""
    if _REMAINDER in module:
        return
    module.declare("llvm.umin.i64", "i64", "i64, i64")
    module.declare("llvm.ctlz.i64", "i64", "i64, i1 immarg")
    module.define(_REMAINDER, _LONG_DIVISION)


_LONG_DIVISION = """define internal void @polycomp.remainder(double %x, double %y, ptr %result) nounwind noinline {
entry:
  %xb = bitcast double %x to i64
  %yb = bitcast double %y to i64
  %sign = and i64 %xb, -9223372036854775808
  %ax = and i64 %xb, 9223372036854775807
  %ay = and i64 %yb, 9223372036854775807
  %zero = icmp eq i64 %ay, 0
  %y.nan = icmp ugt i64 %ay, 9218868437227405312
  %x.special = icmp uge i64 %ax, 9218868437227405312
  %bad1 = or i1 %zero, %y.nan
  %bad = or i1 %bad1, %x.special
  br i1 %bad, label %invalid, label %valid
invalid:
  %product = fmul double %x, %y
  %nan = fdiv double %product, %product
  store double %nan, ptr %result, align 8
  ret void
valid:
  %less = icmp ult i64 %ax, %ay
  br i1 %less, label %same, label %divide
same:
  store double %x, ptr %result, align 8
  ret void
divide:
  %ex.raw = lshr i64 %ax, 52
  %ey.raw = lshr i64 %ay, 52
  %fx = and i64 %ax, 4503599627370495
  %fy = and i64 %ay, 4503599627370495
  %zx.all = call i64 @llvm.ctlz.i64(i64 %fx, i1 false)
  %zy.all = call i64 @llvm.ctlz.i64(i64 %fy, i1 false)
  %zx = sub i64 %zx.all, 11
  %zy = sub i64 %zy.all, 11
  %mx.denormal = shl i64 %fx, %zx
  %my.denormal = shl i64 %fy, %zy
  %mx.normal = or i64 %fx, 4503599627370496
  %my.normal = or i64 %fy, 4503599627370496
  %x.denormal = icmp eq i64 %ex.raw, 0
  %y.denormal = icmp eq i64 %ey.raw, 0
  %mx = select i1 %x.denormal, i64 %mx.denormal, i64 %mx.normal
  %my = select i1 %y.denormal, i64 %my.denormal, i64 %my.normal
  %ex.low = sub i64 1, %zx
  %ey.low = sub i64 1, %zy
  %ex = select i1 %x.denormal, i64 %ex.low, i64 %ex.raw
  %ey = select i1 %y.denormal, i64 %ey.low, i64 %ey.raw
  %distance = sub i64 %ex, %ey
  %first = urem i64 %mx, %my
  br label %step
step:
  %rest = phi i64 [ %first, %divide ], [ %next, %more ]
  %left = phi i64 [ %distance, %divide ], [ %left.next, %more ]
  %finished = icmp eq i64 %left, 0
  br i1 %finished, label %pack, label %more
more:
  %count = call i64 @llvm.umin.i64(i64 %left, i64 11)
  %raised = shl i64 %rest, %count
  %next = urem i64 %raised, %my
  %left.next = sub i64 %left, %count
  br label %step
pack:
  %none = icmp eq i64 %rest, 0
  br i1 %none, label %exact, label %normalise
exact:
  store i64 %sign, ptr %result, align 8
  ret void
normalise:
  %z.all = call i64 @llvm.ctlz.i64(i64 %rest, i1 false)
  %z = sub i64 %z.all, 11
  %m = shl i64 %rest, %z
  %e = sub i64 %ey, %z
  %is.normal = icmp sgt i64 %e, 0
  %fraction = and i64 %m, 4503599627370495
  %e.bits = shl i64 %e, 52
  %normal = or i64 %fraction, %e.bits
  %deep = sub i64 1, %e
  %shift = select i1 %is.normal, i64 0, i64 %deep
  %denormal = lshr i64 %m, %shift
  %magnitude = select i1 %is.normal, i64 %normal, i64 %denormal
  %bits = or i64 %magnitude, %sign
  store i64 %bits, ptr %result, align 8
  ret void
}"""
