"""Indexing as in numpy: integers, slices, None and Ellipsis, and integer arrays; masks only where they are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import IndexingError, ValueNeededError
from polycomp.expr import Expr, compare, prove, wrap
from polycomp.te import Dim
from polycomp.tracing.operands import as_tensor, cast
from polycomp.tracing.shaping import broadcast_to, reshape, transpose
from polycomp.tracing.sizes import dim_of, is_size
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import Value, where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor
    from polycomp.tracing.trace import Trace


@dataclasses.dataclass(frozen=True)
class _Cut:
    """What is taken of one dimension: ``size`` elements from ``start`` in steps; ``dropped`` by an integer index."""

    start: Dim
    step: int
    size: Dim
    dropped: bool = False


def get(x: Tensor, index: Any) -> Tensor:
    """``x[index]``. Raises IndexingError for what lies outside of ``x``, ValueNeededError for a traced mask."""
    items = _expanded(x, index if isinstance(index, tuple) else (index,))
    arrays = [i for i in items if _is_array(i)]
    basic = [slice(None) if _is_array(i) else i for i in items]
    taken = _basic(x, basic)
    if not arrays:
        return taken
    positions = _result_positions(items)
    return _gather(taken, dict(zip(positions, arrays, strict=True)), _are_adjacent(items))


def _is_array(item: Any) -> bool:
    return isinstance(item, Value | np.ndarray | list)


def _expanded(x: Tensor, items: Sequence[Any]) -> list[Any]:
    """One item per dimension, and the Nones: Ellipsis filled in, known masks as positions."""
    plain: list[Any] = []
    for item in items:
        plain += _unmasked(item) if _is_array(item) else [item]
    used = sum(i is not None and i is not Ellipsis for i in plain)
    gaps = [p for p, i in enumerate(plain) if i is Ellipsis]
    if len(gaps) > 1:
        raise IndexingError(f"{where()}: an index can have only one Ellipsis (...)")
    if used > x.ndim:
        raise IndexingError(f"{where()}: {used} indices were given for {x.type}, which has {x.ndim} dimensions")
    place = gaps[0] if gaps else len(plain)
    return [*plain[:place], *[slice(None)] * (x.ndim - used), *plain[place + 1 :]]


def _unmasked(item: Any) -> list[Any]:
    """The item itself, or the positions where a mask is true."""
    if isinstance(item, Value):
        if item.kind is DType.BOOL:
            raise ValueNeededError(
                f"{where()}: how many elements a mask selects is known only from its values; use where(mask, x, other)"
            )
        return [item]
    array = np.asarray(item)
    if array.size == 0:
        array = array.astype(np.int64)
    return list(array.nonzero()) if array.dtype == bool else [array]


def _basic(x: Tensor, items: Sequence[Any]) -> Tensor:
    """Integers, slices and Nones."""
    own = [i for i in items if i is not None]
    cuts = [_cut(x.owner, i, n, d) for d, (i, n) in enumerate(zip(own, x.type.shape, strict=True))]
    if any(c.start != 0 or c.step != 1 or c.size != n for c, n in zip(cuts, x.type.shape, strict=True)):
        starts, steps, sizes = (tuple(parts) for parts in zip(*((c.start, c.step, c.size) for c in cuts), strict=True))
        x = emit("Slice", x, starts=starts, steps=steps, sizes=sizes)
    if not any(c.dropped for c in cuts) and None not in [i if i is None else 0 for i in items]:
        return x
    remaining = iter(cuts)
    shape: list[Dim] = []
    for item in items:
        cut = _Cut(0, 1, 1) if item is None else next(remaining)
        shape += [] if cut.dropped else [cut.size]
    return reshape(x, tuple(shape))


def _cut(trace: Trace, item: Any, size: Dim, dimension: int) -> _Cut:
    if isinstance(item, slice):
        return _slice(trace, item, size, dimension)
    if not is_size(item):
        raise IndexingError(
            f"{where()}: {item!r} cannot be an index; use integers, slices, None, ... or integer arrays"
        )
    place = dim_of(item)
    start = size + place if isinstance(place, int) and place < 0 else place
    if not (_holds(trace, start, 0) and _holds(trace, size - 1 - start, 0)):
        raise IndexingError(f"{where()}: index {place} is outside of dimension {dimension} of size {size}")
    return _Cut(trace.dim(start), 1, 1, True)


def _slice(trace: Trace, item: slice, size: Dim, dimension: int) -> _Cut:
    bounds = [None if b is None else _bound(b) for b in (item.start, item.stop)]
    step = 1 if item.step is None else _bound(item.step)
    if not isinstance(step, int) or step == 0:
        raise IndexingError(f"{where()}: the step of a slice must be an integer other than 0, not {step}")
    if isinstance(size, int) and all(b is None or isinstance(b, int) for b in bounds):
        start, stop, _ = slice(bounds[0], bounds[1], step).indices(size)
        length = len(range(start, stop, step))
        return _Cut(start if length else 0, step, length)
    return _open_slice(trace, bounds, step, size, dimension)


def _bound(bound: Any) -> Dim:
    if not is_size(bound):
        raise IndexingError(f"{where()}: a slice needs integers that are known, not {bound!r}")
    return dim_of(bound)


def _open_slice(trace: Trace, bounds: Sequence[Dim | None], step: int, size: Dim, dimension: int) -> _Cut:
    """A slice of an open size: bounds that numpy would clamp are demanded to lie inside."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    places = [_place(b, size) for b in bounds]
    start = places[0] if places[0] is not None else (low if step > 0 else high)
    stop = places[1] if places[1] is not None else (high if step > 0 else low)
    distance = stop - start if step > 0 else start - stop
    demands = ((start - low, 0), (high - start, 0), (stop - low, 0), (high - stop, 0), (distance, 0))
    if not all(_holds(trace, dim, least) for dim, least in demands):
        raise IndexingError(
            f"{where()}: the slice {start}:{stop}:{step} cannot be shown to lie within dimension {dimension} of the "
            f"open size {size}"
        )
    length = wrap(distance + abs(step) - 1) // abs(step)
    return _Cut(trace.dim(start), step, trace.dim(length))


def _place(bound: Dim | None, size: Dim) -> Dim | None:
    return size + bound if isinstance(bound, int) and bound < 0 else bound


def _holds(trace: Trace, dim: Dim, minimum: int) -> bool:
    """Whether ``dim >= minimum``, for certain or because it is demanded from now on."""
    simple = trace.dim(dim)
    if not isinstance(simple, Expr):
        return simple >= minimum
    return prove(compare("ge", simple, minimum), trace.ranges) is True or trace.demand(simple, minimum)


def _result_positions(items: Sequence[Any]) -> list[int]:
    """Where in the basic result each array's dimension is."""
    positions = []
    place = 0
    for item in items:
        if _is_array(item):
            positions.append(place)
        place += item is None or isinstance(item, slice) or _is_array(item)
    return positions


def _are_adjacent(items: Sequence[Any]) -> bool:
    """Whether the arrays (and integers between them) are next to each other, which decides where numpy puts them."""
    places = [p for p, i in enumerate(items) if _is_array(i) or (is_size(i) and i is not None)]
    return places == list(range(places[0], places[-1] + 1))


def _gather(x: Tensor, arrays: dict[int, Any], adjacent: bool) -> Tensor:
    """Integer arrays as indices of the dimensions that they are given for; several are broadcast together."""
    places = list(arrays)
    indices = [_index(x, a) for a in arrays.values()]
    if len(places) > 1:
        order = [*places, *(d for d in range(x.ndim) if d not in places)]
        x, combined = _combined(transpose(x, order), indices)
        result = emit("Gather", x, combined, axis=0)
        return _put_back(result, combined.ndim, places[0] if adjacent else 0)
    result = emit("Gather", x, indices[0], axis=places[0])
    return result if adjacent else _bring_front(result, places[0], indices[0].ndim)


def _index(x: Tensor, array: Any) -> Tensor:
    index = as_tensor(x.owner, array)
    if not index.kind.is_integer:
        raise IndexingError(f"{where()}: an index array must hold integers, not {index.kind.value}")
    return cast(index, np.int64)


def _combined(x: Tensor, indices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The first dimensions of ``x`` as one, and the positions in it; a position outside stays outside."""
    sizes = x.type.shape[: len(indices)]
    flat: Tensor | None = None
    bad: Tensor | None = None
    for index, size in zip(indices, sizes, strict=True):
        number = _scalar(x, size)
        place = call_ufunc(np.add, index, call_ufunc(np.multiply, call_ufunc(np.less, index, 0), number))
        outside = call_ufunc(np.logical_or, call_ufunc(np.less, place, 0), call_ufunc(np.greater_equal, place, number))
        bad = outside if bad is None else call_ufunc(np.logical_or, bad, outside)
        flat = place if flat is None else call_ufunc(np.add, call_ufunc(np.multiply, flat, number), place)
    total = x.owner.dim(_product(sizes))
    merged = reshape(x, (total, *x.type.shape[len(indices) :]))
    if flat is None or bad is None:
        raise IndexingError(f"{where()}: an index array is needed")
    far = broadcast_to(_scalar(x, total), flat.type.shape)
    return merged, emit("Where", bad, far, flat)


def _scalar(x: Tensor, size: Dim) -> Tensor:
    if isinstance(size, Expr):
        return x.owner.emit("Fill", [], {"shape": (), "value": size, "dtype": DType.INT64})
    return x.owner.constant(np.asarray(size, np.int64))


def _product(sizes: Sequence[Dim]) -> Dim:
    total: Dim = 1
    for size in sizes:
        total = total * size
    return total


def _put_back(x: Tensor, count: int, place: int) -> Tensor:
    """The first ``count`` dimensions moved behind ``place`` others."""
    rest = list(range(count, x.ndim))
    return transpose(x, [*rest[:place], *range(count), *rest[place:]])


def _bring_front(x: Tensor, place: int, count: int) -> Tensor:
    moved = list(range(place, place + count))
    return transpose(x, [*moved, *(d for d in range(x.ndim) if d not in moved)])
