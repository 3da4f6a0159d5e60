"""Shapes: reshaping, moving and repeating dimensions, joining and splitting tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.errors import IndexingError, ShapeError
from polycomp.expr import Expr, wrap
from polycomp.te import Dim
from polycomp.tracing.operands import as_tensor, result_type, trace_of
from polycomp.tracing.sizes import dim_of, dims_of, is_size
from polycomp.tracing.ufuncs import emit
from polycomp.tracing.value import where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor
    from polycomp.tracing.trace import Trace


def axis_number(axis: Any, rank: int) -> int:
    """``axis`` counted from the front. Raises IndexingError naming the dimensions that there are."""
    number = int(axis)
    if not -rank <= number < rank:
        raise IndexingError(f"{where()}: axis {number} does not exist in a tensor of {rank} dimensions")
    return number % rank


def axis_numbers(axis: Any, rank: int) -> tuple[int, ...]:
    """The dimensions that ``axis`` names (None: all), in ascending order."""
    if axis is None:
        return tuple(range(rank))
    numbers = [axis_number(a, rank) for a in (axis if isinstance(axis, tuple | list) else (axis,))]
    if len(set(numbers)) < len(numbers):
        raise IndexingError(f"{where()}: the axes {tuple(numbers)} name a dimension twice")
    return tuple(sorted(numbers))


def shape_of(dims: Sequence[Any]) -> tuple[Any, ...]:
    """A shape given as one tuple or as separate arguments."""
    return tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], tuple | list) else tuple(dims)


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in row-major order; one size may be -1, which is what remains."""
    dims = list(dims_of(shape_of(shape)))
    unknown = [d for d, n in enumerate(dims) if isinstance(n, int) and n == -1]
    if len(unknown) > 1:
        raise ShapeError(f"{where()}: only one size of a reshape can be -1, not those of {dims}")
    for d in unknown:
        rest = math.prod([n for e, n in enumerate(dims) if e != d])
        dims[d] = _quotient(x, math.prod(x.type.shape), rest)
    return emit("Reshape", x, shape=tuple(x.owner.dim(n) for n in dims))


def _quotient(x: Tensor, total: Dim, rest: Dim) -> Dim:
    total, rest = x.owner.dim(total), x.owner.dim(rest)
    if isinstance(total, int) and isinstance(rest, int):
        if rest == 0 or total % rest:
            raise ShapeError(f"{where()}: {total} elements cannot be reshaped to rows of {rest}")
        return total // rest
    return x.owner.dim(wrap(total) // rest)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The dimensions in another order; reversed when ``axes`` is None."""
    perm = tuple(range(x.ndim))[::-1] if axes is None else tuple(axis_number(a, x.ndim) for a in axes)
    if sorted(perm) != list(range(x.ndim)):
        raise ShapeError(f"{where()}: the axes {tuple(axes or ())} are no order of {x.ndim} dimensions")
    return emit("Transpose", x, perm=perm) if perm != tuple(range(x.ndim)) else x


def moveaxis(x: Tensor, source: Any, destination: Any) -> Tensor:
    """numpy.moveaxis."""
    pairs = [_as_tuple(source), _as_tuple(destination)]
    old, new = ([axis_number(a, x.ndim) for a in axes] for axes in pairs)
    order = [d for d in range(x.ndim) if d not in old]
    for position, axis in sorted(zip(new, old, strict=True)):
        order.insert(position, axis)
    return transpose(x, order)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def swapaxes(x: Tensor, a: int, b: int) -> Tensor:
    """Two dimensions exchanged."""
    order = list(range(x.ndim))
    i, j = axis_number(a, x.ndim), axis_number(b, x.ndim)
    order[i], order[j] = j, i
    return transpose(x, order)


def expand_dims(x: Tensor, axis: Any) -> Tensor:
    """New dimensions of size 1 at these positions of the result."""
    new = _as_tuple(axis)
    rank = x.ndim + len(new)
    places = {axis_number(a, rank) for a in new}
    own = iter(x.type.shape)
    return reshape(x, tuple(1 if d in places else next(own) for d in range(rank)))


def squeeze(x: Tensor, axis: Any = None) -> Tensor:
    """Without dimensions of size 1: these ones, or all."""
    shape = x.type.shape
    gone = axis_numbers(axis, x.ndim) if axis is not None else [d for d, n in enumerate(shape) if n == 1]
    wrong = [d for d in gone if shape[d] != 1]
    if wrong:
        raise ShapeError(f"{where()}: dimension {wrong[0]} of {x.type} has not the size 1 and cannot be squeezed")
    return reshape(x, tuple(n for d, n in enumerate(shape) if d not in gone))


def broadcast_to(x: Tensor, shape: Any) -> Tensor:
    """numpy.broadcast_to."""
    dims = dims_of(shape)
    result = emit("Expand", x, shape=dims)
    if result.ndim != len(dims) or any(a != b for a, b in zip(result.type.shape, map(x.owner.dim, dims), strict=True)):
        raise ShapeError(f"{where()}: {x.type} cannot be broadcast to [{', '.join(map(str, dims))}]")
    return result


def _together(tensors: Sequence[Any]) -> list[Tensor]:
    """The tensors in the one dtype that numpy promotes them to."""
    trace, dtype = trace_of(*tensors), result_type(*tensors)
    return [as_tensor(trace, t, dtype) for t in tensors]


def concatenate(tensors: Sequence[Any], axis: int | None = 0) -> Tensor:
    """Tensors one after the other along a dimension they have; flattened first when ``axis`` is None."""
    parts = _together(tensors)
    if axis is None:
        return concatenate([reshape(p, -1) for p in parts], 0)
    if parts[0].ndim == 0:
        raise ShapeError(f"{where()}: scalars have no dimension to be joined along; use stack")
    return emit("Concat", *parts, axis=axis_number(axis, parts[0].ndim)) if len(parts) > 1 else parts[0]


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new dimension."""
    return concatenate([expand_dims(t, axis) for t in _together(tensors)], axis)


def _at_least(x: Tensor, rank: int, front: bool) -> Tensor:
    ones = (1,) * max(0, rank - x.ndim)
    return reshape(x, (*ones, *x.type.shape) if front else (*x.type.shape, *ones)) if ones else x


def vstack(tensors: Sequence[Any]) -> Tensor:
    """Rows on top of each other."""
    return concatenate([_at_least(t, 2, True) for t in _together(tensors)], 0)


def hstack(tensors: Sequence[Any]) -> Tensor:
    """Columns side by side; vectors one after the other."""
    parts = [_at_least(t, 1, True) for t in _together(tensors)]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1)


def column_stack(tensors: Sequence[Any]) -> Tensor:
    """Vectors as columns."""
    return concatenate([t if t.ndim > 1 else reshape(t, -1, 1) for t in _together(tensors)], 1)


def split(x: Tensor, parts: Any, axis: int = 0) -> list[Tensor]:
    """numpy.split: into a number of equal parts, or at the given positions."""
    number = axis_number(axis, x.ndim)
    size = x.type.shape[number]
    if is_size(parts):
        if isinstance(size, int) and size % parts:
            raise ShapeError(f"{where()}: a dimension of {size} cannot be split into {parts} equal parts")
        return _split_into(x, [_quotient(x, size, dim_of(parts))] * int(parts), number)
    return _split_at(x, [dim_of(p) for p in parts], number)


def array_split(x: Tensor, parts: Any, axis: int = 0) -> list[Tensor]:
    """numpy.array_split: the first parts are one longer where the size does not divide."""
    number = axis_number(axis, x.ndim)
    size = x.type.shape[number]
    if not is_size(parts):
        return split(x, parts, axis)
    if isinstance(size, Expr):
        raise ShapeError(f"{where()}: a dimension of the open size {size} can only be split into equal parts, by split")
    longer = size % parts
    return _split_into(x, [size // parts + (p < longer) for p in range(parts)], number)


def _split_at(x: Tensor, positions: Sequence[Dim], axis: int) -> list[Tensor]:
    size = x.type.shape[axis]
    if isinstance(size, int):
        marks = [min(max(p + size if p < 0 else p, 0), size) for p in positions if isinstance(p, int)]
        bounds: list[Dim] = [0, *itertools.accumulate(marks, max), size]
    else:
        bounds = [0, *positions, size]
    return _split_into(x, [x.owner.dim(b - a) for a, b in itertools.pairwise(bounds)], axis)


def _split_into(x: Tensor, sizes: Sequence[Dim], axis: int) -> list[Tensor]:
    if len(sizes) == 1:
        return [x]
    return x.owner.emit_all("Split", [x], {"axis": axis, "sizes": tuple(sizes)}, len(sizes))


def tile(x: Tensor, repeats: Any) -> Tensor:
    """numpy.tile."""
    counts = dims_of(repeats)
    data = _at_least(x, len(counts), True)
    counts = (1,) * (data.ndim - len(counts)) + counts
    return emit("Tile", data, repeats=counts)


def repeat(x: Tensor, repeats: Any, axis: int | None = None) -> Tensor:
    """numpy.repeat by one count: every element that often in a row."""
    data = reshape(x, -1) if axis is None else x
    number = 0 if axis is None else axis_number(axis, x.ndim)
    count, shape = dim_of(repeats), data.type.shape
    rows = reshape(data, (*shape[: number + 1], 1, *shape[number + 1 :]))
    wide = broadcast_to(rows, (*shape[: number + 1], count, *shape[number + 1 :]))
    return reshape(wide, (*shape[:number], shape[number] * count, *shape[number + 1 :]))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(x: Tensor, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Tensor:
    """numpy.pad with the modes constant, reflect, edge and wrap."""
    if mode not in _PAD_MODES:
        raise ShapeError(f"{where()}: the padding mode is one of {', '.join(_PAD_MODES)}, not {mode!r}")
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2))
    if (widths < 0).any():
        raise ShapeError(f"{where()}: pads cannot be negative: {widths.tolist()}")
    pads = (*(int(w) for w in widths[:, 0]), *(int(w) for w in widths[:, 1]))
    fill = [as_tensor(x.owner, constant_values, x.dtype)] if mode == "constant" else []
    return emit("Pad", x, *fill, pads=pads, mode=mode)


def triangle(x: Tensor, k: int, upper: bool) -> Tensor:
    """numpy.tril and numpy.triu."""
    return emit("Trilu", x, k=int(k), upper=int(upper))


def full(trace: Trace, shape: Any, value: Any, dtype: Any) -> Tensor:
    """A tensor of one number."""
    number = as_tensor(trace, value, np.dtype(dtype))
    return emit("Expand", number, shape=dims_of(shape))
