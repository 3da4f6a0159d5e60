"""Linear quantisation: scales and zero points as element-wise operators around sums of products of integers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.known import is_symbolic
from polycomp.importers.onnx.site import Handler, Site
from polycomp.importers.onnx.tensors import dtype_of


def _quantize(site: Site) -> Sequence[Value]:
    """saturate(round(x / scale) + zero point)."""
    x, scale = site.input(0), _spread(site, 1)
    zero = _spread(site, 2) if site.has(2) else None
    asked = site.integer("output_dtype", 0)
    dtype = zero.dtype if zero else dtype_of(asked, site.where) if asked else DType.UINT8
    return [_rounded(site, site.emit("Div", x, site.cast(scale, x.dtype)), zero, dtype)]


def _rounded(site: Site, x: Value, zero: Value | None, dtype: DType) -> Value:
    """saturate(round(x) + zero point)."""
    rounded = site.emit("Round", x)
    if zero is not None:
        rounded = site.emit("Add", rounded, site.cast(zero, x.dtype))
    return site.cast(site.emit("Clip", rounded, min=dtype.minimum, max=dtype.maximum), dtype)


def _dequantize(site: Site) -> Sequence[Value]:
    """(x - zero point) * scale."""
    scale = _spread(site, 1)
    x = site.cast(site.input(), scale.dtype)
    if site.has(2):
        x = site.emit("Sub", x, site.cast(_spread(site, 2), scale.dtype))
    return [site.emit("Mul", x, scale)]


def _spread(site: Site, position: int) -> Value:
    """A scale or zero point in a shape that broadcasts: one for all, one per index of an axis, or one per block."""
    value, x = site.input(position), site.input()
    block = site.integer("block_size", 0)
    if value.rank == 0 or value.shape == (1,):
        return site.reshape(value, ())
    axis = site.axis(site.integer("axis", 1), x.rank)
    if block:
        return _repeated(site, value, axis, block)
    return site.reshape(value, tuple(value.shape[0] if d == axis else 1 for d in range(x.rank)))


def _repeated(site: Site, value: Value, axis: int, block: int) -> Value:
    """``value`` with every index of ``axis`` ``block`` times, cut to the extent of the input."""
    x, blocks = site.input().shape, value.shape[axis]
    before, after = value.shape[:axis], value.shape[axis + 1 :]
    split = site.reshape(value, (*before, blocks, 1, *after))
    wide = site.emit("Expand", split, shape=(*before, blocks, block, *after))
    whole = site.reshape(wide, (*before, blocks * block, *after))
    if whole.shape[axis] == x[axis]:
        return whole
    return site.emit("Slice", whole, starts=(0,) * len(x), steps=(1,) * len(x), sizes=(*before, x[axis], *after))


def _matmul_integer(site: Site) -> Sequence[Value]:
    """(a - its zero points) @ (b - its zero points), in int32."""
    return [_product(site, site.input(0), site.input(1), site.optional(2), site.optional(3))]


def _product(site: Site, a: Value, b: Value, a_zero: Value | None, b_zero: Value | None) -> Value:
    """The zero points leave the sum: ``sum(a*b) - za * sum(b - zb) - zb * sum(a)``."""
    b, b_zero = _without_zero(site, b, b_zero)
    za, zb = _zero_point(site, a_zero, (-1, 1)), _zero_point(site, b_zero, (1, -1))
    result = site.emit("MatMulInteger", a, b)
    if za is not None:
        columns = site.cast(b, DType.INT32)
        columns = columns if zb is None else site.emit("Sub", columns, zb)
        sums = site.emit("ReduceSum", columns, axes=(max(0, b.rank - 2),), keepdims=b.rank > 1)
        result = site.emit("Add", result, site.emit("Neg", site.emit("Mul", za, sums)))
    if zb is not None:
        sums = site.emit("ReduceSum", site.cast(a, DType.INT32), axes=(a.rank - 1,), keepdims=a.rank > 1)
        result = site.emit("Sub", result, site.emit("Mul", zb, sums))
    return result


def _zero_point(site: Site, zero: Value | None, shape: tuple[int, int]) -> Value | None:
    """A zero point as int32 that broadcasts against the product: one per row or per column; None when it is 0."""
    if zero is None or (_is_number(zero) and not np.any(zero.known)):
        return None
    wide = site.cast(zero, DType.INT32)
    if zero.rank == 0 or zero.shape == (1,):
        return site.reshape(wide, ())
    return site.reshape(wide, tuple(zero.shape[0] if d < 0 else 1 for d in shape)) if zero.rank == 1 else wide


def _is_number(value: Value) -> bool:
    return value.known is not None and not is_symbolic(value.known)


def _without_zero(site: Site, b: Value, zero: Value | None) -> tuple[Value, Value | None]:
    """A constant matrix less its zero points, where that fits int8: no sums of the other operand are needed then."""
    if zero is None or not _is_number(zero) or not _is_number(b):
        return b, zero
    shifted = np.asarray(b.known, np.int32) - np.asarray(zero.known, np.int32)
    if shifted.size and (shifted.min() < -128 or shifted.max() > 127):
        return b, zero
    return site.known(shifted.astype(np.int8), DType.INT8), None


def _qlinear_matmul(site: Site) -> Sequence[Value]:
    """saturate(round(the product in int32 times a's scale times b's by y's) + y's zero point)."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (site.input(i) for i in range(8))
    scales = [_along(site, v, d) for v, d in ((a_scale, 0), (b_scale, 1), (y_scale, 0))]
    total = _product(site, a, b, a_zero, b_zero)
    return [_requantized(site, total, scales, _along(site, y_zero, 0), y_zero.dtype)]


def _along(site: Site, value: Value, dimension: int) -> Value:
    """A scale or zero point per row (dimension 0) or column of a matrix, in a shape that broadcasts."""
    if value.rank == 0 or value.shape == (1,):
        return site.reshape(value, ())
    size = math.prod(value.shape)
    return site.reshape(value, (size, 1) if dimension == 0 else (1, size)) if value.rank == 1 else value


def _requantized(site: Site, total: Value, scales: Sequence[Value], zero: Value, dtype: DType) -> Value:
    """saturate(round(total * scales[0] * scales[1] / scales[2]) + zero)."""
    x_scale, w_scale, y_scale = (site.cast(s, DType.FLOAT32) for s in scales)
    scale = site.emit("Div", site.emit("Mul", x_scale, w_scale), y_scale)
    return _rounded(site, site.emit("Mul", site.cast(total, DType.FLOAT32), scale), zero, dtype)


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        "MatMulInteger": _matmul_integer,
        "QLinearMatMul": _qlinear_matmul,
    }
)
