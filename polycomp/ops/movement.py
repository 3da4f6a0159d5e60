"""Operators that move data: every output element is one input element, or a constant."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from polycomp.dtypes import DType, as_dtype
from polycomp.expr import CheckedIndex, Const, Expr, cast, const, maximum, minimum, select, simplify, wrap
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import (
    ANY,
    axis_of,
    broadcast,
    broadcast_load,
    check_dtypes,
    conjunction,
    known_different,
    pointwise,
    same_dim,
    same_type,
    shape_error,
)
from polycomp.ops.registry import family
from polycomp.ops.windows import as_dim, optional, required
from polycomp.te import Dim, Tensor

_INDEX_TYPES = frozenset([DType.INT32, DType.INT64])


def _replaced(index: Sequence[Expr], axis: int, by: Expr) -> tuple[Expr, ...]:
    return (*index[:axis], by, *index[axis + 1 :])


def _infer_concat(call: Call) -> tuple[TensorType, ...]:
    dtype = check_dtypes(call, ANY)
    first = call.input(0)
    axis = axis_of(call, first.rank)
    types = [call.input(p) for p in range(len(call.inputs))]
    for other in types:
        fits = other.rank == first.rank and all(
            d == axis or same_dim(a, b) for d, (a, b) in enumerate(zip(first.shape, other.shape, strict=True))
        )
        if not fits:
            raise shape_error(call, f"the inputs may differ in dimension {axis} only")
    total = as_dim(sum(t.shape[axis] for t in types))
    return (TensorType(dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :])),)


def _lower_concat(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """``select(i < end0, first[i], select(i < end1, second[i - end0], ...))`` on the index of the axis."""
    (out,) = _infer_concat(call)
    axis = axis_of(call, out.rank)
    parts = [t for t in inputs if t is not None]
    parts = [t for t in parts if t.shape[axis] != 0] or parts[:1]
    starts = _starts([t.shape[axis] for t in parts])

    def body(*index: Expr) -> Expr:
        def part(p: int) -> Expr:
            own = _replaced(index, axis, simplify(index[axis] - starts[p]))
            return broadcast_load(parts[p], parts[p].shape, own)

        value = part(len(parts) - 1)
        for p in reversed(range(len(parts) - 1)):
            value = select(index[axis] < starts[p + 1], part(p), value)
        return value

    return (pointwise(call, "", out.shape, body),)


def _starts(sizes: Sequence[Dim]) -> list[Dim]:
    """Where each part begins."""
    starts: list[Dim] = [0]
    for size in sizes[:-1]:
        starts.append(as_dim(starts[-1] + size))
    return starts


def _infer_split(call: Call) -> tuple[TensorType, ...]:
    x = call.input(0)
    axis, sizes = axis_of(call, x.rank), tuple(as_dim(n) for n in call.attr("sizes"))
    if known_different(sum(sizes), x.shape[axis]) or len(sizes) != call.n_outputs:
        raise shape_error(call, f"dimension {axis} cannot be split into {call.n_outputs} parts of sizes {list(sizes)}")
    return tuple(TensorType(x.dtype, (*x.shape[:axis], n, *x.shape[axis + 1 :])) for n in sizes)


def _lower_split(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    axis = axis_of(call, x.rank)

    def part(out: TensorType, start: Dim) -> Tensor:
        return pointwise(call, "", out.shape, lambda *index: x[_replaced(index, axis, index[axis] + start)])

    outputs = _infer_split(call)
    starts = _starts([out.shape[axis] for out in outputs])
    return tuple(part(out, start) for out, start in zip(outputs, starts, strict=True))


def _infer_slice(call: Call) -> tuple[TensorType, ...]:
    x = call.input(0)
    starts, steps, sizes = (tuple(call.attr(name)) for name in ("starts", "steps", "sizes"))
    if not x.rank == len(starts) == len(steps) == len(sizes) or 0 in steps:
        raise shape_error(call, f"starts, steps (not 0) and sizes are needed for all {x.rank} dimensions")
    for d, (n, start, step, size) in enumerate(zip(x.shape, starts, steps, map(as_dim, sizes), strict=True)):
        first, last = as_dim(start + 0), as_dim(start + (size - 1) * step)
        inside = all(_may_be_inside(place, n) for place in (first, last))
        if not inside and size != 0:
            raise shape_error(call, f"elements {first} to {last} of dimension {d} are outside of its size {n}")
    return (TensorType(x.dtype, tuple(map(as_dim, sizes))),)


def _may_be_inside(place: Dim, size: Dim) -> bool:
    room = as_dim(size - 1 - place)
    return not ((isinstance(place, int) and place < 0) or (isinstance(room, int) and room < 0))


def _lower_slice(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_slice(call)
    starts, steps = call.attr("starts"), call.attr("steps")

    def body(*index: Expr) -> Expr:
        return x[tuple(i * step + start for i, start, step in zip(index, starts, steps, strict=True))]

    return (pointwise(call, "", out.shape, body),)


def _checked(index: Expr, size: Dim) -> Expr:
    """An index that may count from the end, checked; a literal within a known size needs no check."""
    wide = cast(DType.INT64, index)
    if isinstance(wide, Const) and isinstance(size, int) and -size <= wide.value < size:
        return const(int(wide.value) % size)
    return CheckedIndex(select(wide < 0, wide + size, wide), wrap(size))


def _infer_gather(call: Call) -> tuple[TensorType, ...]:
    x, indices = call.input(0), call.input(1)
    check_dtypes(call, _INDEX_TYPES, [1])
    axis = axis_of(call, x.rank)
    return (TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)


def _lower_gather(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, indices = required(inputs, 0), required(inputs, 1)
    (out,) = _infer_gather(call)
    axis = axis_of(call, x.rank)
    after = axis + indices.rank

    def body(*index: Expr) -> Expr:
        place = broadcast_load(indices, indices.shape, index[axis:after])
        return x[(*index[:axis], _checked(place, x.shape[axis]), *index[after:])]

    return (pointwise(call, "", out.shape, body),)


def _infer_gather_elements(call: Call) -> tuple[TensorType, ...]:
    x, indices = call.input(0), call.input(1)
    check_dtypes(call, _INDEX_TYPES, [1])
    if x.rank != indices.rank:
        raise shape_error(call, "data and indices must have the same number of dimensions")
    axis = axis_of(call, x.rank)
    for d, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if d != axis and isinstance(more := as_dim(m - n), int) and more > 0:
            raise shape_error(call, f"the indices' dimension {d} is larger than the data's")
    return (TensorType(x.dtype, indices.shape),)


def _lower_gather_elements(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, indices = required(inputs, 0), required(inputs, 1)
    axis = axis_of(call, x.rank)

    def body(*index: Expr) -> Expr:
        place = broadcast_load(indices, indices.shape, index)
        return x[_replaced(index, axis, _checked(place, x.shape[axis]))]

    return (pointwise(call, "", indices.shape, body),)


def _infer_transpose(call: Call) -> tuple[TensorType, ...]:
    x = call.input(0)
    perm = tuple(call.attr("perm", range(x.rank)[::-1]))
    if sorted(perm) != list(range(x.rank)):
        raise shape_error(call, f"{list(perm)} is not a permutation of {x.rank} dimensions")
    return (TensorType(x.dtype, tuple(x.shape[d] for d in perm)),)


def _lower_transpose(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_transpose(call)
    perm = tuple(call.attr("perm", range(x.rank)[::-1]))
    return (pointwise(call, "", out.shape, lambda *i: x[tuple(i[perm.index(d)] for d in range(x.rank))]),)


def _pads(call: Call) -> list[tuple[Dim, Dim]]:
    """Elements added before and after, per dimension; negative ones are taken away."""
    rank, pads = call.input(0).rank, tuple(call.attr("pads"))
    if len(pads) != 2 * rank:
        raise shape_error(call, f"{2 * rank} pads are needed, not {len(pads)}")
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _infer_pad(call: Call) -> tuple[TensorType, ...]:
    x, mode = call.input(0), call.attr("mode", "constant")
    if mode not in ("constant", *_OUTSIDE):
        raise shape_error(call, f"the mode is constant, {', '.join(_OUTSIDE)}, not {mode!r}")
    if call.has(1):
        check_dtypes(call, ANY, [0, 1])
    shape = tuple(as_dim(n + before + after) for n, (before, after) in zip(x.shape, _pads(call), strict=True))
    if any(isinstance(n, int) and n < 0 for n in shape):
        raise shape_error(call, f"the pads {list(call.attr('pads'))} take away more than there is")
    if mode != "constant" and any(n == 0 and out != 0 for n, out in zip(x.shape, shape, strict=True)):
        raise shape_error(call, f"mode {mode!r} cannot extend an empty dimension")
    return (TensorType(x.dtype, shape),)


def _lower_pad(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, value = required(inputs, 0), optional(inputs, 1)
    (out,) = _infer_pad(call)
    mode, pads = call.attr("mode", "constant"), _pads(call)

    def constant(*index: Expr) -> Expr:
        places = [i - before for i, (before, _) in zip(index, pads, strict=True)]
        inside = conjunction([t for i, n, pad in zip(index, x.shape, pads, strict=True) for t in _inside(i, n, *pad)])
        element = x[tuple(places)]
        return element if inside is None else select(inside, element, _fill_value(x, value))

    def extended(*index: Expr) -> Expr:
        zipped = zip(index, x.shape, pads, strict=True)
        return x[tuple(i if pad == (0, 0) else _OUTSIDE[mode](i - pad[0], n, *pad) for i, n, pad in zipped)]

    return (pointwise(call, "", out.shape, constant if mode == "constant" else extended),)


def _inside(index: Expr, size: Dim, before: Dim, after: Dim) -> list[Expr]:
    """What holds when ``index`` of the padded tensor is not in the padding; tests that cannot fail are left out."""
    tests = []
    if not isinstance(before, int) or before > 0:
        tests.append(index >= before)
    if not isinstance(after, int) or after > 0:
        tests.append(index < as_dim(before + size))
    return tests


def _fill_value(x: Tensor, value: Tensor | None) -> Expr:
    if value is None:
        return const(0, x.dtype)
    return value.body if isinstance(value.body, Const) else value[(const(0),) * value.rank]


def _edge(place: Expr, size: Dim, before: Dim, after: Dim) -> Expr:
    return minimum(maximum(place, 0), wrap(size) - 1)


def _reflect(place: Expr, size: Dim, before: Dim, after: Dim) -> Expr:
    """Mirrored at the first and last elements, which are not repeated; one fold is enough for small pads."""
    if size == 1:
        return const(0)
    last = as_dim(size - 1)
    if not all(isinstance(n, int) and n <= last for n in (last, before, after)):
        period = maximum(wrap(last) * 2, 1)
        turn = place % period
        return minimum(turn, period - turn)
    below = place if before == 0 else select(place < 0, -place, place)
    return below if after == 0 else select(place > last, 2 * last - place, below)


def _wrap_around(place: Expr, size: Dim, before: Dim, after: Dim) -> Expr:
    return place % size


_OUTSIDE: dict[str, Callable[[Expr, Dim, Dim, Dim], Expr]] = {
    "reflect": _reflect,
    "edge": _edge,
    "wrap": _wrap_around,
}
"""Where an element in the padding comes from: (place in the data, its size, pads before and after) -> index."""


def _infer_expand(call: Call) -> tuple[TensorType, ...]:
    x = call.input(0)
    return (TensorType(x.dtype, broadcast(call, [x.shape, tuple(call.attr("shape"))])),)


def _lower_expand(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_expand(call)
    return (pointwise(call, "", out.shape, lambda *index: broadcast_load(x, out.shape, index)),)


def _infer_tile(call: Call) -> tuple[TensorType, ...]:
    x, repeats = call.input(0), tuple(call.attr("repeats"))
    if len(repeats) != x.rank:
        raise shape_error(call, f"{x.rank} repeats are needed, not {len(repeats)}")
    return (TensorType(x.dtype, tuple(as_dim(n * r) for n, r in zip(x.shape, repeats, strict=True))),)


def _lower_tile(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_tile(call)

    def place(index: Expr, size: Dim, repeat: Dim) -> Expr:
        return index if repeat == 1 else index % size

    repeats = call.attr("repeats")
    return (pointwise(call, "", out.shape, lambda *index: x[tuple(map(place, index, x.shape, repeats))]),)


def _block(call: Call) -> tuple[TensorType, int]:
    x, block = call.input(0), int(call.attr("blocksize"))
    if x.rank != 4 or block < 1:
        raise shape_error(call, f"data [N, C, H, W] and a positive block size are needed, not {block}")
    return x, block


def _exact_quotient(call: Call, size: Dim, divisor: int, what: str) -> Dim:
    if isinstance(size, int) and size % divisor:
        raise shape_error(call, f"{what} {size} is no multiple of {divisor}")
    return as_dim(wrap(size) // divisor)


def _infer_depth_to_space(call: Call) -> tuple[TensorType, ...]:
    x, block = _block(call)
    n, c, h, w = x.shape
    channels = _exact_quotient(call, c, block * block, "the number of channels")
    return (TensorType(x.dtype, (n, channels, as_dim(h * block), as_dim(w * block))),)


def _lower_depth_to_space(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_depth_to_space(call)
    _, block = _block(call)
    by_column = call.attr("mode", "DCR") == "CRD"

    def body(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        offset = h % block * block + w % block
        channel = c * (block * block) + offset if by_column else offset * out.shape[1] + c
        return x[n, channel, h // block, w // block]

    return (pointwise(call, "", out.shape, body),)


def _infer_space_to_depth(call: Call) -> tuple[TensorType, ...]:
    x, block = _block(call)
    n, c, h, w = x.shape
    height, width = (_exact_quotient(call, size, block, "the spatial size") for size in (h, w))
    return (TensorType(x.dtype, (n, as_dim(c * block * block), height, width)),)


def _lower_space_to_depth(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_space_to_depth(call)
    (_, block), channels = _block(call), wrap(x.shape[1])
    by_column = call.attr("mode", "DCR") == "CRD"

    def body(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        area = block * block
        offset, channel = (c % area, c // area) if by_column else (c // channels, c % channels)
        return x[n, channel, h * block + offset // block, w * block + offset % block]

    return (pointwise(call, "", out.shape, body),)


def _infer_trilu(call: Call) -> tuple[TensorType, ...]:
    if call.input(0).rank < 2:
        raise shape_error(call, "a matrix, or a batch of them, is needed")
    return same_type(call)


def _lower_trilu(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The elements on and above (``upper``) or below diagonal ``k``, others 0."""
    x = required(inputs, 0)
    k: Dim = call.attr("k", 0)

    def body(*index: Expr) -> Expr:
        row, column = index[-2:]
        kept = column >= row + k if call.attr("upper", 1) else column <= row + k
        return select(kept, x[index], const(0, x.dtype))

    return (pointwise(call, "", x.shape, body),)


def _infer_range(call: Call) -> tuple[TensorType, ...]:
    """``size`` elements; or, given an int64 ``limit``, as many as lie before it."""
    dtype = as_dtype(call.attr("dtype", DType.INT64))
    size = call.attr("size")
    if size is None:
        start, limit, delta = (call.attr(name) for name in ("start", "limit", "delta"))
        if not isinstance(delta, int) or delta == 0:
            raise shape_error(call, f"the step must be an int other than 0, not {delta}")
        distance = limit - start if delta > 0 else start - limit
        size = maximum(wrap((distance + abs(delta) - 1) // abs(delta)), 0)
    return (TensorType(dtype, (as_dim(size),)),)


def _lower_range(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    (out,) = _infer_range(call)
    start, delta = call.attr("start", 0), call.attr("delta", 1)
    exact = DType.FLOAT64 if any(isinstance(v, float) for v in (start, delta)) else DType.INT64

    def body(i: Expr) -> Expr:
        step, first = (cast(exact, wrap(v, exact)) for v in (delta, start))
        return cast(out.dtype, first + cast(exact, i) * step)

    return (pointwise(call, "", out.shape, body),)


def _infer_fill(call: Call) -> tuple[TensorType, ...]:
    dtype = as_dtype(call.attr("dtype", DType.FLOAT32))
    return (TensorType(dtype, tuple(as_dim(n) for n in call.attr("shape"))),)


def _lower_fill(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    (out,) = _infer_fill(call)
    value = call.attr("value", 0)
    element = cast(out.dtype, value) if isinstance(value, Expr) else const(value, out.dtype)
    return (pointwise(call, "", out.shape, lambda *index: element),)


_injective = functools.partial(Operator, kind=OpKind.INJECTIVE)

OPERATORS = family(
    _injective("Concat", infer=_infer_concat, lower=_lower_concat),
    _injective("Split", infer=_infer_split, lower=_lower_split),
    _injective("Slice", infer=_infer_slice, lower=_lower_slice),
    _injective("Gather", infer=_infer_gather, lower=_lower_gather),
    _injective("GatherElements", infer=_infer_gather_elements, lower=_lower_gather_elements),
    _injective("Transpose", infer=_infer_transpose, lower=_lower_transpose),
    _injective("Pad", infer=_infer_pad, lower=_lower_pad),
    _injective("Expand", infer=_infer_expand, lower=_lower_expand),
    _injective("Tile", infer=_infer_tile, lower=_lower_tile),
    _injective("DepthToSpace", infer=_infer_depth_to_space, lower=_lower_depth_to_space),
    _injective("SpaceToDepth", infer=_infer_space_to_depth, lower=_lower_space_to_depth),
    _injective("Trilu", infer=_infer_trilu, lower=_lower_trilu),
    _injective("Range", infer=_infer_range, lower=_lower_range),
    _injective("Fill", infer=_infer_fill, lower=_lower_fill),
)
