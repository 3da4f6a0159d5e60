"""Linear quantisation: scales and zero points as element-wise operators around sums of products of integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.site import Handler, Site
from polycomp.importers.onnx.tensors import dtype_of
from polycomp.importers.onnx.windows import convolution_attributes


def _quantize(site: Site) -> Sequence[Value]:
    """saturate(round(x / scale) + zero point)."""
    zero = _spread(site, 2) if site.has(2) else None
    asked = site.integer("output_dtype", 0)
    dtype = zero.dtype if zero else dtype_of(asked, site.where) if asked else DType.UINT8
    return [site.emit("QuantizeLinear", site.input(), _spread(site, 1), zero, to=dtype)]


def _dequantize(site: Site) -> Sequence[Value]:
    """(x - zero point) * scale."""
    zero = _spread(site, 2) if site.has(2) else None
    return [site.emit("DequantizeLinear", site.input(), _spread(site, 1), zero)]


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
    zeros = (None if z is None else _along(site, z, d) for d, z in enumerate((a_zero, b_zero)))
    return site.emit("MatMulInteger", a, b, *zeros)


def _along(site: Site, value: Value, dimension: int) -> Value:
    """A scale or zero point, perhaps one per row (dimension 0) or column of a matrix, in a shape that broadcasts."""
    if value.rank == 0 or value.shape == (1,):
        return site.reshape(value, ())
    size = value.shape[0]
    return site.reshape(value, (size, 1) if dimension == 0 else (1, size)) if value.rank == 1 else value


def _qlinear_matmul(site: Site) -> Sequence[Value]:
    """saturate(round(the product in int32 times a's scale times b's by y's) + y's zero point)."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (site.input(i) for i in range(8))
    total = _product(site, a, b, a_zero, b_zero)
    scales = [_along(site, v, d) for v, d in ((a_scale, 0), (b_scale, 1), (y_scale, 0))]
    return [_requantized(site, total, scales, _along(site, y_zero, 0))]


def _requantized(site: Site, total: Value, scales: Sequence[Value], zero: Value) -> Value:
    """saturate(round(total / (scales[2] / (scales[0] * scales[1]))) + zero)."""
    x_scale, w_scale, y_scale = (site.cast(s, DType.FLOAT32) for s in scales)
    scale = site.emit("Div", site.emit("Mul", x_scale, w_scale), y_scale)
    scaled = site.emit("Mul", site.cast(total, DType.FLOAT32), scale)
    one = site.known(np.array(1, np.float32), DType.FLOAT32)
    return site.emit("QuantizeLinear", scaled, one, zero, to=zero.dtype)


def _conv_integer(site: Site) -> Sequence[Value]:
    """(x - its zero point) convolved with (w - its zero points), in int32."""
    return [_convolution(site, site.input(0), site.input(1), site.optional(2), site.optional(3), 1)]


def _convolution(site: Site, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None, weights: int) -> Value:
    """``weights`` is the position of the weights among the node's inputs."""
    zeros = (None if z is None else _per_channel(site, z, rank) for z, rank in ((x_zero, 0), (w_zero, w.rank)))
    return site.emit("ConvInteger", x, w, *zeros, **convolution_attributes(site, weights))


def _per_channel(site: Site, value: Value, rank: int) -> Value:
    """One value, or one per index of the first of ``rank`` dimensions."""
    if value.rank == 0 or value.shape == (1,):
        return site.reshape(value, ())
    return site.reshape(value, (value.shape[0], *(1,) * (rank - 1)))


def _qlinear_conv(site: Site) -> Sequence[Value]:
    """saturate(round((the convolution in int32 + bias) times x's scale times w's by y's) + y's zero point)."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (site.input(i) for i in range(8))
    total = _convolution(site, x, w, x_zero, w_zero, 3)
    bias = site.optional(8)
    if bias is not None:
        total = site.emit("Add", total, _per_channel(site, bias, w.rank - 1))
    scales = [_per_channel(site, s, rank) for s, rank in ((x_scale, 0), (w_scale, w.rank - 1), (y_scale, 0))]
    return [_requantized(site, total, scales, _per_channel(site, y_zero, 0))]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        "MatMulInteger": _matmul_integer,
        "QLinearMatMul": _qlinear_matmul,
        "ConvInteger": _conv_integer,
        "QLinearConv": _qlinear_conv,
    }
)
