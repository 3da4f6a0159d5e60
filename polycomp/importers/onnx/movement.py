"""Operators that move elements: transpose, concatenate, split, slice, gather, pad, resize."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ModelError, ShapeError
from polycomp.expr import Expr, Var, bounds, maximum, minimum, wrap
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.known import is_symbolic
from polycomp.importers.onnx.site import Handler, Site
from polycomp.te import Dim

_FAR = 2**31 - 2  # exporters write INT_MAX (of 32 or 64 bits) for "to the end"


def _transpose(site: Site) -> Sequence[Value]:
    x = site.input()
    perm = tuple(site.integers("perm", list(range(x.rank))[::-1]))
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"{site.where} has perm={list(perm)}, which does not permute {x.rank} dimensions")
    return [x if perm == tuple(range(x.rank)) else site.emit("Transpose", x, perm=perm)]


def _concat(site: Site) -> Sequence[Value]:
    parts = [v for v in site.inputs if v is not None]
    if not parts:
        raise ModelError(f"{site.where} has no inputs")
    axis = site.axis(site.integer("axis", 1), parts[0].rank)
    return [parts[0] if len(parts) == 1 else site.emit("Concat", *parts, axis=axis)]


def _split(site: Site) -> Sequence[Value]:
    x = site.input()
    axis = site.axis(site.integer("axis", 0), x.rank)
    given = site.integers("split") if site.given("split") else site.dims(1)
    sizes = tuple(given) if given is not None else _equal_parts(site, x.shape[axis])
    count = len(site.proto.output)
    if len(sizes) != count:
        raise ShapeError(f"{site.where} has {count} outputs, but splits into {len(sizes)} parts")
    return site.emit_all("Split", count, x, axis=axis, sizes=sizes)


def _equal_parts(site: Site, size: Dim) -> tuple[Dim, ...]:
    count = site.integer("num_outputs", len(site.proto.output))
    if count < 1:
        raise ModelError(f"{site.where} splits into {count} parts")
    if isinstance(size, Expr):
        part = site.builder.dim(size // count)
        if site.builder.dim(part * count) != site.builder.dim(size):
            raise site.unsupported(f"it splits the symbolic size {size} into {count} parts; fix the input's shape")
        return (part,) * count
    part = -(-size // count)
    sizes = (*(part,) * (count - 1), size - part * (count - 1))
    if sizes[-1] < 0 or (sizes[-1] != part and not site.given("num_outputs")):
        raise ShapeError(f"{site.where} cannot split a dimension of size {size} into {count} equal parts")
    return sizes


def _slice(site: Site) -> Sequence[Value]:
    """Opset 10 turned the limits from attributes into inputs and added steps."""
    x = site.input()
    if site.opset < 10:
        strides: Sequence[int] = [1] * len(site.integers("starts"))
        begins: Sequence[Dim] = site.integers("starts")
        ends: Sequence[Dim] = site.integers("ends")
        named: Sequence[int] = site.integers("axes", list(range(len(begins))))
    else:
        begins, ends = site.dims(1) or [], site.dims(2) or []
        axes = site.ints_of(3)
        named = list(range(len(begins))) if axes is None else axes
        strides = site.ints_of(4) or [1] * len(begins)
    if not len(begins) == len(ends) == len(named) == len(strides):
        raise ModelError(f"{site.where} has starts, ends, axes and steps of different lengths")
    parts: list[tuple[Dim, int, Dim]] = [(0, 1, d) for d in x.shape]
    site.axes(named, x.rank)
    for axis, begin, end, step in zip(named, begins, ends, strides, strict=True):
        if step == 0:
            raise ModelError(f"{site.where} has a step of 0")
        position = site.axis(axis, x.rank)
        parts[position] = _part(site, x.shape[position], begin, end, step)
    return [sliced(site, x, parts)]


def sliced(site: Site, x: Value, parts: Sequence[tuple[Dim, int, Dim]]) -> Value:
    """``x`` cut to (start, step, size) per dimension."""
    starts, steps, sizes = zip(*parts, strict=True) if parts else ((), (), ())
    if tuple(sizes) == x.shape and all(s == 1 for s in steps):
        return x
    numbers = [v for v in (*starts, *sizes) if not isinstance(v, Expr)]
    if x.known is not None and not x.name and len(numbers) == 2 * len(parts):
        index = [np.arange(s.__index__()) * t + b for b, t, s in parts]  # type: ignore[union-attr]
        return site.known(x.known[np.ix_(*index)], x.dtype)
    return site.emit("Slice", x, starts=tuple(starts), steps=tuple(steps), sizes=tuple(sizes))


def _part(site: Site, dim: Dim, begin: Dim, end: Dim, step: int) -> tuple[Dim, int, Dim]:
    """(start, step, size) of a slice of a dimension, clamped as ONNX says."""
    if not isinstance(dim, Expr) and not isinstance(begin, Expr) and not isinstance(end, Expr):
        found = range(*slice(begin, end, step).indices(dim))
        return (found.start if found else 0, step, len(found))
    if step < 0:
        whole = not isinstance(begin, Expr) and not isinstance(end, Expr) and end <= -_FAR
        if whole and (begin == -1 or begin >= _FAR):
            return (site.builder.dim(dim - 1), step, site.builder.dim((dim - step - 1) // -step))
        raise site.unsupported("it slices part of a symbolic size backwards")
    start, stop = _clamped(site, begin, dim), _clamped(site, end, dim)
    length = site.builder.dim(maximum(wrap(0), wrap(stop - start)))
    return (start, step, site.builder.dim((length + (step - 1)) // step))


def _clamped(site: Site, index: Dim, dim: Dim) -> Dim:
    if isinstance(index, Expr):
        if isinstance(index, Var) and not isinstance(dim, Expr):
            site.builder.bound(index, dim)  # a longer input would be cut here and contradict itself later
            return index
        low, _ = bounds(index, site.builder.ranges)
        positive = index if low is not None and low >= 0 else maximum(wrap(0), index)
        return site.builder.dim(minimum(wrap(positive), wrap(dim)))
    if index >= _FAR:
        return dim
    if index < 0:
        return site.builder.dim(maximum(wrap(0), wrap(dim + index)))
    return site.builder.dim(minimum(wrap(index), wrap(dim)))


def _gather(site: Site) -> Sequence[Value]:
    """A constant scalar index is a slice: its address is then known."""
    x, indices = site.input(0), site.input(1)
    if not indices.dtype.is_integer:
        raise DTypeError(f"{site.where} has indices of type {indices.dtype.value}; they must be integers")
    axis = site.axis(site.integer("axis", 0), x.rank)
    size = x.shape[axis] if x.rank else 0
    index = indices.known
    if index is None or is_symbolic(index) or index.size != 1 or isinstance(size, Expr):
        return [site.emit("Gather", x, indices, axis=axis)]
    position = int(index.reshape(-1)[0])
    if not -size <= position < size:
        raise ShapeError(f"{site.where} gathers index {position} of a dimension of size {size}")
    parts: list[tuple[Dim, int, Dim]] = [(0, 1, d) for d in x.shape]
    parts[axis] = (position % size, 1, 1)
    return [site.reshape(sliced(site, x, parts), (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))]


def _gather_elements(site: Site) -> Sequence[Value]:
    x = site.input()
    return [site.emit("GatherElements", x, site.input(1), axis=site.axis(site.integer("axis", 0), x.rank))]


def _pad(site: Site) -> Sequence[Value]:
    x = site.input()
    mode = site.choice("mode", "constant", ("constant", "reflect", "edge", "wrap"))
    given: Sequence[Dim] | None = site.integers("pads") if site.opset < 11 else site.dims(1)
    axes = site.ints_of(3) if site.opset >= 18 else None
    named = [site.axis(a, x.rank) for a in axes] if axes is not None else list(range(x.rank))
    if given is None or len(given) != 2 * len(named):
        raise ShapeError(f"{site.where} has {len(given or ())} pads for {len(named)} dimensions")
    pads: list[Dim] = [0] * (2 * x.rank)
    for position, axis in enumerate(named):
        pads[axis], pads[x.rank + axis] = given[position], given[len(named) + position]
    value = None
    if mode == "constant":
        value = _fill_value(site, x)
    return [_pad_and_crop(site, x, pads, mode, value)]


def _fill_value(site: Site, x: Value) -> Value | None:
    if site.opset >= 11:
        return site.reshape(site.input(2), ()) if site.has(2) else None
    number = site.number("value", 0.0)
    return site.known(np.array(number), x.dtype) if number else None


def _pad_and_crop(site: Site, x: Value, pads: Sequence[Dim], mode: str, value: Value | None) -> Value:
    """Negative pads cut elements off."""
    negative = [0 if isinstance(p, Expr) else max(0, -p) for p in pads]
    added = tuple(p if isinstance(p, Expr) else max(0, p) for p in pads)
    if any(negative):
        ends = zip(negative[: x.rank], negative[x.rank :], x.shape, strict=True)
        x = sliced(site, x, [(b, 1, site.builder.dim(d - b - e)) for b, e, d in ends])
    return x if all(p == 0 for p in added) else site.emit("Pad", x, value, pads=added, mode=mode)


def _tile(site: Site) -> Sequence[Value]:
    x, repeats = site.input(), site.dims(1)
    if repeats is None or len(repeats) != x.rank:
        raise ShapeError(f"{site.where} has {len(repeats or ())} repeats for {x.rank} dimensions")
    return [x if all(r == 1 for r in repeats) else site.emit("Tile", x, repeats=tuple(repeats))]


def _resize(site: Site) -> Sequence[Value]:
    x = site.input()
    newer = site.opset >= 11
    if newer and (site.integer("antialias", 0) or (site.has(1) and _transform(site) == "tf_crop_and_resize")):
        raise site.unsupported("antialias and tf_crop_and_resize are not available")
    sizes, scales = _resize_sizes(site, x)
    if tuple(sizes) == x.shape and all(s == 1 for s in scales):
        return [x]
    attributes = {
        "mode": site.choice("mode", "nearest", ("nearest", "linear", "cubic", "bilinear")).removeprefix("bi"),
        "coordinate_transformation_mode": _transform(site) if newer else "asymmetric",
        "nearest_mode": site.choice("nearest_mode", "round_prefer_floor" if newer else "floor", _NEAREST),
        "cubic_coeff_a": site.number("cubic_coeff_a", -0.75),
        "exclude_outside": bool(site.integer("exclude_outside", 0)),
    }
    return [site.emit("Resize", x, sizes=tuple(sizes), scales=tuple(scales), **attributes)]


_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_TRANSFORMS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")


def _transform(site: Site) -> str:
    return site.choice("coordinate_transformation_mode", "half_pixel", (*_TRANSFORMS, "tf_crop_and_resize"))


def _resize_sizes(site: Site, x: Value) -> tuple[list[Dim], list[float]]:
    """Output sizes and scales of every dimension. Opset 7 has scales as an attribute, 9 and 10 as input 1."""
    axes = [site.axis(a, x.rank) for a in site.integers("axes", list(range(x.rank)))]
    scales: list[float] | None = site.number_list("scales") if site.given("scales") else None
    if scales is None:
        array = site.array(1 if site.opset < 11 else 2)
        scales = [float(s) for s in array.reshape(-1)] if array is not None and array.size else None
    given = site.dims(3) if site.opset >= 11 else None
    if (scales is None) == (not given) or len(scales or given or ()) != len(axes):
        raise ModelError(f"{site.where} must have either scales or sizes, one per dimension that it resizes")
    outs, factors = list(x.shape), [1.0] * x.rank
    if given:
        given = _keep_aspect(site, [x.shape[a] for a in axes], given)
    for position, axis in enumerate(axes):
        size = x.shape[axis]
        if scales is not None:
            factors[axis] = scales[position]
            outs[axis] = _scaled(site, size, scales[position])
        elif given:
            outs[axis] = given[position]
            factors[axis] = _ratio(site, given[position], size)
    return outs, factors


def _keep_aspect(site: Site, sizes: Sequence[Dim], wanted: Sequence[Dim]) -> list[Dim]:
    """Opset 18: sizes as limits that keep the aspect ratio."""
    policies = ("stretch", "not_larger", "not_smaller")
    policy = site.choice("keep_aspect_ratio_policy", "stretch", policies)
    if policy == "stretch":
        return list(wanted)
    ratios = [_ratio(site, w, s) for w, s in zip(wanted, sizes, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [math.floor(scale * int(s) + 0.5) for s in sizes if not isinstance(s, Expr)]


def _ratio(site: Site, wanted: Dim, size: Dim) -> float:
    if wanted == size:
        return 1.0
    if isinstance(wanted, Expr) or isinstance(size, Expr) or size == 0:
        raise site.unsupported(f"it resizes {size} to {wanted}; fix the input's shape")
    return wanted / size


def _scaled(site: Site, size: Dim, scale: float) -> Dim:
    if not 0 < scale < 2**31:
        raise ModelError(f"{site.where} has a scale of {scale}")
    if isinstance(size, Expr):
        if scale != int(scale):
            raise site.unsupported(f"it scales the symbolic size {size} by {scale}; fix the input's shape")
        return site.builder.dim(size * int(scale))
    return math.floor(size * scale)


def _blocks(site: Site) -> Sequence[Value]:
    block = site.integer("blocksize")
    if block < 1:
        raise ModelError(f"{site.where} has blocksize={block}")
    mode = site.choice("mode", "DCR", ("DCR", "CRD"))
    if site.op == "DepthToSpace":
        return [site.emit("DepthToSpace", site.input(), blocksize=block, mode=mode)]
    if mode == "DCR":
        return [site.emit("SpaceToDepth", site.input(), blocksize=block)]
    return [_channels_first(site, block)]


def _channels_first(site: Site, block: int) -> Value:
    """SpaceToDepth with the channel outermost in the new channels: [n, c, h, b, w, b] to [n, c, b, b, h, w]."""
    x = site.input()
    if x.rank != 4:
        raise ShapeError(f"{site.where} needs an input of 4 dimensions, but it has {x.rank}")
    n, c, h, w = x.shape
    split = site.reshape(x, (n, c, h // block, block, w // block, block))
    moved = site.emit("Transpose", split, perm=(0, 1, 3, 5, 2, 4))
    return site.reshape(moved, (n, c * block * block, h // block, w // block))


def _trilu(site: Site) -> Sequence[Value]:
    diagonal = site.array(1)
    k = int(diagonal.reshape(-1)[0]) if diagonal is not None and diagonal.size == 1 else 0
    return [site.emit("Trilu", site.input(), k=k, upper=bool(site.integer("upper", 1)))]


def _one_hot(site: Site) -> Sequence[Value]:
    """Where the (wrapped) index equals the position along the new axis, the second value, else the first."""
    indices, depth, values = site.cast(site.input(0), DType.INT64), site.dims(1), site.input(2)
    if depth is None or len(depth) != 1 or values.shape != (2,):
        raise ModelError(f"{site.where} needs a scalar depth and two values")
    rank = indices.rank + 1
    axis = site.axis(site.integer("axis", -1), rank)
    size = site.builder.known(depth, (), DType.INT64)
    zero = site.known(np.array(0), DType.INT64)
    wrapped = site.emit("Where", site.emit("Less", indices, zero), site.emit("Add", indices, size), indices)
    column = site.reshape(wrapped, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    positions = site.emit("Range", start=0, size=depth[0], delta=1, dtype=DType.INT64)
    line = site.reshape(positions, tuple(depth[0] if d == axis else 1 for d in range(rank)))
    off, on = (site.reshape(sliced(site, values, [(i, 1, 1)]), ()) for i in range(2))
    return [site.emit("Where", site.emit("Equal", column, line), on, off)]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "Transpose": _transpose,
        "Concat": _concat,
        "Split": _split,
        "Slice": _slice,
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "Pad": _pad,
        "Tile": _tile,
        "Resize": _resize,
        "Upsample": _resize,
        "DepthToSpace": _blocks,
        "SpaceToDepth": _blocks,
        "Trilu": _trilu,
        "OneHot": _one_hot,
    }
)
