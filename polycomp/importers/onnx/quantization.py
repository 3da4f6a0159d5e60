"""Linear quantisation, taken apart into element-wise operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp.dtypes import DType
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.site import Handler, Site
from polycomp.importers.onnx.tensors import dtype_of


def _quantize(site: Site) -> Sequence[Value]:
    """saturate(round(x / scale) + zero point)."""
    x, scale = site.input(0), _per_axis(site, 1)
    zero = _per_axis(site, 2) if site.has(2) else None
    asked = site.integer("output_dtype", 0)
    dtype = zero.dtype if zero else dtype_of(asked, site.where) if asked else DType.UINT8
    rounded = site.emit("Round", site.emit("Div", x, site.cast(scale, x.dtype)))
    if zero is not None:
        rounded = site.emit("Add", rounded, site.cast(zero, x.dtype))
    return [site.cast(site.emit("Clip", rounded, min=dtype.minimum, max=dtype.maximum), dtype)]


def _dequantize(site: Site) -> Sequence[Value]:
    """(x - zero point) * scale."""
    scale = _per_axis(site, 1)
    x = site.cast(site.input(), scale.dtype)
    if site.has(2):
        x = site.emit("Sub", x, site.cast(_per_axis(site, 2), scale.dtype))
    return [site.emit("Mul", x, scale)]


def _per_axis(site: Site, position: int) -> Value:
    """A scale or zero point in a shape that broadcasts along its axis."""
    value, x = site.input(position), site.input()
    if site.integer("block_size", 0):
        raise site.unsupported("its block_size asks for blocked quantisation")
    if value.rank == 0 or value.shape == (1,):
        return site.reshape(value, ())
    axis = site.axis(site.integer("axis", 1), x.rank)
    return site.reshape(value, tuple(value.shape[0] if d == axis else 1 for d in range(x.rank)))


HANDLERS: Mapping[str, Handler] = MappingProxyType({"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize})
