"""Conversions between floats of 16 bits and wider ones.

float16 is converted with instructions where the machine has them, else with integers: LLVM would call a runtime library
on machines without F16C. bfloat16 is the upper half of a float32; it is rounded with integers on all machines, because
AVX-512's instruction takes denormal numbers for zeros.
"""

from __future__ import annotations

from polycomp.codegen.llvm.builder import FunctionBuilder, Value, type_name
from polycomp.codegen.llvm.num import Num, wrap
from polycomp.dtypes import DType


def to_float(b: FunctionBuilder, x: Value) -> Value:
    """float16 or bfloat16 to float32, exactly."""
    if x.dtype is DType.BFLOAT16:
        bits = wrap(b, Value(x.ref, DType.UINT16, x.lanes)).cast(DType.UINT32)
        return (bits << 16).bits(DType.FLOAT32).value
    if _has_conversion(b):
        return Value(b.pure(f"fpext {x} to {type_name(DType.FLOAT32, x.lanes)}"), DType.FLOAT32, x.lanes)
    return _expand(wrap(b, x).bits(DType.INT16).cast(DType.INT32)).value


def from_float(b: FunctionBuilder, x: Value, dtype: DType) -> Value:
    """float32 to float16 or bfloat16, to nearest even."""
    if dtype is DType.BFLOAT16:
        return Value(_upper_half(wrap(b, x)).value.ref, dtype, x.lanes)
    if _has_conversion(b):
        return Value(b.pure(f"fptrunc {x} to {type_name(DType.FLOAT16, x.lanes)}"), DType.FLOAT16, x.lanes)
    return _shrink(wrap(b, x)).cast(DType.INT16).bits(DType.FLOAT16).value


def from_double(b: FunctionBuilder, x: Value, dtype: DType) -> Value:
    """float64 to either, to nearest even: the step through float32 rounds to odd, so nothing is rounded twice.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd" (2008).
    """
    wide = wrap(b, x)
    near = wide.convert(DType.FLOAT32)
    back = near.convert(DType.FLOAT64)
    bits = near.bits(DType.INT32)
    toward_zero = (back.abs() > wide.abs()).select(bits - 1, bits)
    odd = back.ne(wide).select(toward_zero | 1, bits)
    finite = near.abs() < near.like(float("inf"))
    return from_float(b, finite.select(odd, bits).bits(DType.FLOAT32).value, dtype)


def _upper_half(x: Num) -> Num:
    """float32 to the bits of a bfloat16 (as int16), to nearest even; a NaN stays one."""
    bits = x.bits(DType.UINT32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return x.ne(x).select((bits >> 16) | 0x40, rounded).cast(DType.INT16)


def _has_conversion(b: FunctionBuilder) -> bool:
    return not b.module.is_x86 or b.module.has("f16c") or b.module.has("avx512f")


def _expand(h: Num) -> Num:
    """Bits of a float16 (as int32) to float32: shift into place, then multiply to move the exponent.

    The multiplication by 2**112 also normalises denormals; infinities and NaNs get the largest exponent.
    """
    magnitude = (h & 0x7FFF) << 13
    scaled = (magnitude.bits(DType.FLOAT32) * 2.0**112).bits(DType.INT32)
    special = (magnitude >= 0x0F800000).select(magnitude | 0x7F800000, scaled)
    return (special | ((h & 0x8000) << 16)).bits(DType.FLOAT32)


def _shrink(x: Num) -> Num:
    """float32 to the bits of a float16 (as int32), to nearest even.

    Normal results round by integer addition; denormal ones by adding 0.5, whose last place is 2**-24.
    """
    bits = x.bits(DType.INT32)
    sign = (bits >> 16) & 0x8000
    magnitude = bits & 0x7FFFFFFF
    odd = (magnitude >> 13) & 1
    normal = (magnitude - 0x38000000 + 0x0FFF + odd) >> 13
    denormal = (magnitude.bits(DType.FLOAT32) + 0.5).bits(DType.INT32) - 0x3F000000
    finite = (magnitude < 0x38800000).select(denormal, normal)
    overflowed = (magnitude >= 0x477FF000).select(finite.like(0x7C00), finite)
    nan = ((magnitude >> 13) & 0x3FF) | 0x7E00
    return (magnitude > 0x7F800000).select(nan, overflowed) | sign
