"""Convolutions and pooling: windows that slide over the spatial dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from polycomp.errors import ModelError, ShapeError
from polycomp.expr import Expr
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.site import Handler, Site

_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _spatial_rank(site: Site) -> int:
    rank = site.input().rank - 2
    if rank < 1:
        raise ShapeError(
            f"{site.where} needs an input with batch, channel and spatial dimensions, but it has {rank + 2}"
        )
    return rank


def _per_dimension(site: Site, name: str, default: int, count: int, least: int) -> tuple[int, ...]:
    values = tuple(site.integers(name, [default] * count))
    if len(values) != count:
        raise ShapeError(f"{site.where} has {name}={list(values)}, but its input wants {count} values")
    if min(values) < least or max(values) > 2**31:
        raise ModelError(f"{site.where} has {name}={list(values)}; values must be at least {least}")
    return values


def _kernel(site: Site, weights: int = 1) -> tuple[int, ...]:
    """The window of a convolution is its weights', which a kernel_shape attribute may only repeat.

    ``weights`` is their position among the inputs.
    """
    rank = _spatial_rank(site)
    weight = site.input(weights)
    if weight.rank != rank + 2:
        raise ShapeError(f"{site.where} has weights of {weight.rank} dimensions; its input wants {rank + 2}")
    spatial = weight.shape[2:]
    if any(isinstance(d, Expr) for d in spatial):
        raise site.unsupported("its window is of open size; fix the shape of its weights")
    kernel = tuple(int(d) for d in spatial if not isinstance(d, Expr))
    if site.given("kernel_shape") and tuple(site.integers("kernel_shape")) != kernel:
        raise ShapeError(f"{site.where} has kernel_shape={site.integers('kernel_shape')}, but its weights {kernel}")
    if min(kernel) < 1:
        raise ShapeError(f"{site.where} has an empty window: its weights have the spatial shape {list(kernel)}")
    return kernel


def _window(site: Site, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Strides, dilations and explicit pads (auto_pad resolved) of a window over the first input."""
    rank = len(kernel)
    strides = _per_dimension(site, "strides", 1, rank, 1)
    dilations = _per_dimension(site, "dilations", 1, rank, 1)
    auto_pad = site.choice("auto_pad", "NOTSET", _AUTO_PADS)
    if auto_pad == "NOTSET":
        pads = _per_dimension(site, "pads", 0, 2 * rank, 0)
    elif auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    else:
        pads = _same_pads(site, kernel, strides, dilations, upper=auto_pad == "SAME_UPPER")
    return {"strides": strides, "dilations": dilations, "pads": pads}


def _same_pads(
    site: Site, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], upper: bool
) -> tuple[int, ...]:
    """Pads that give ceil(size / stride) outputs, the odd one at the end (upper) or the beginning."""
    begins, ends = [], []
    for size, k, stride, dilation in zip(site.input().shape[2:], kernel, strides, dilations, strict=True):
        extent = (k - 1) * dilation + 1
        if isinstance(size, Expr) and stride != 1:
            raise site.unsupported("auto_pad with strides needs spatial sizes that are known; fix the input's shape")
        outputs = 1 if isinstance(size, Expr) else -(-size // stride)
        used = extent - 1 if isinstance(size, Expr) else max(0, (outputs - 1) * stride + extent - size)
        begins.append(used // 2 if upper else used - used // 2)
        ends.append(used - begins[-1])
    return (*begins, *ends)


def _group(site: Site) -> int:
    group = site.integer("group", 1)
    if group < 1:
        raise ModelError(f"{site.where} has group={group}; it must be at least 1")
    return group


def convolution_attributes(site: Site, weights: int = 1) -> dict[str, Any]:
    """The canonical attributes of a convolution whose weights are input number ``weights``."""
    return {"group": _group(site), **_window(site, _kernel(site, weights))}


def _conv(site: Site) -> Sequence[Value]:
    inputs = (site.input(0), site.input(1), site.optional(2))
    return [site.emit("Conv", *inputs, **convolution_attributes(site))]


def _conv_transpose(site: Site) -> Sequence[Value]:
    kernel = _kernel(site)
    rank = len(kernel)
    strides = _per_dimension(site, "strides", 1, rank, 1)
    dilations = _per_dimension(site, "dilations", 1, rank, 1)
    extra = _per_dimension(site, "output_padding", 0, rank, 0)
    pads, extra = _transposed_pads(site, kernel, strides, dilations, extra)
    inputs = (site.input(0), site.input(1), site.optional(2))
    sizes = {"strides": strides, "dilations": dilations, "output_padding": extra, "pads": pads}
    return [site.emit("ConvTranspose", *inputs, group=_group(site), **sizes)]


def _transposed_pads(
    site: Site,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    extra: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pads and output padding of a transposed convolution; output_shape or auto_pad may decide them (ONNX
    ConvTranspose). An output_shape beyond what the windows reach is padded at the end."""
    rank = len(kernel)
    auto_pad = site.choice("auto_pad", "NOTSET", _AUTO_PADS)
    if auto_pad == "VALID" or (auto_pad == "NOTSET" and not site.given("output_shape")):
        given = _per_dimension(site, "pads", 0, 2 * rank, 0) if auto_pad == "NOTSET" else (0,) * (2 * rank)
        return given, extra
    sizes = site.input().shape[2:]
    if any(isinstance(s, Expr) for s in sizes):
        raise site.unsupported("output_shape and auto_pad need spatial sizes that are known; fix the input's shape")
    known = [int(s) for s in sizes if not isinstance(s, Expr)]
    wanted = site.integers("output_shape", [s * stride for s, stride in zip(known, strides, strict=True)])[-rank:]
    if len(wanted) != rank:
        raise ShapeError(f"{site.where} has output_shape={wanted}, but its input wants {rank} values")
    begins, ends, beyond = [], [], []
    for d in range(rank):
        full = strides[d] * (known[d] - 1) + extra[d] + (kernel[d] - 1) * dilations[d] + 1
        total = max(0, full - wanted[d])
        beyond.append(extra[d] + max(0, wanted[d] - full))
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return (*begins, *ends), tuple(beyond)


def _pool(site: Site) -> Sequence[Value]:
    rank = _spatial_rank(site)
    kernel = tuple(site.integers("kernel_shape"))
    if len(kernel) != rank or min(kernel) < 1:
        raise ShapeError(f"{site.where} has kernel_shape={list(kernel)}; its input wants {rank} positive values")
    if len([o for o in site.proto.output if o]) > 1:
        raise site.unsupported("its second output (the indices of the maxima) is used")
    attributes: dict[str, Any] = {"kernel_shape": kernel, **_window(site, kernel)}
    attributes["ceil_mode"] = bool(site.integer("ceil_mode", 0))
    if site.op == "AveragePool":
        attributes["count_include_pad"] = bool(site.integer("count_include_pad", 0))
    if site.op == "LpPool":
        attributes["p"] = site.integer("p", 2)
    return [site.emit(site.op, site.input(), **attributes)]


def _global_pool(site: Site) -> Sequence[Value]:
    _spatial_rank(site)
    return [site.emit(site.op, site.input())]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "MaxPool": _pool,
        "AveragePool": _pool,
        "LpPool": _pool,
        "GlobalAveragePool": _global_pool,
        "GlobalMaxPool": _global_pool,
    }
)
