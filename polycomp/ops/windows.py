"""Geometry of sliding windows, shared by convolution and pooling, with plain or channel-blocked data.

Spatial dimensions always start at dimension 2: plain data is ``[N, C, spatial...]`` and blocked data is
``[N, ceil(C / c), spatial..., c]``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.expr import Const, Expr, ExprLike, cast, compare, const, minimum, select, simplify, wrap
from polycomp.graph.ir import Call
from polycomp.te import Axis, Dim, Tensor

FIRST_SPATIAL = 2


@dataclasses.dataclass(frozen=True)
class Window:
    """A window's size, step and padding, one entry per spatial dimension; paddings are in elements."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def extents(self) -> tuple[int, ...]:
        """Input elements from a window's first tap to its last, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def at(self, starts: Sequence[Expr], taps: Sequence[Expr]) -> tuple[Expr, ...]:
        """The index into the padded input of window number ``starts`` at ``taps``."""
        steps = zip(starts, taps, self.strides, self.dilations, strict=True)
        return tuple(o * s + k * d for o, k, s, d in steps)


def window_of(call: Call, kernel: Sequence[Dim]) -> Window:
    """The window that ``call``'s strides, dilations and pads describe; absent attributes are 1, 1 and 0."""
    rank = len(kernel)
    if not all(isinstance(k, int) and k > 0 for k in kernel):
        raise ShapeError(f"{call.op} {call.node!r}: the kernel must have a fixed positive size, not {list(kernel)}")
    pads = tuple(call.attr("pads") or (0,) * (2 * rank))
    strides = tuple(call.attr("strides") or (1,) * rank)
    dilations = tuple(call.attr("dilations") or (1,) * rank)
    if len(pads) != 2 * rank or len(strides) != rank or len(dilations) != rank:
        raise ShapeError(
            f"{call.op} {call.node!r}: a kernel of {rank} dimensions needs {rank} strides and dilations and "
            f"{2 * rank} pads, not {len(strides)}, {len(dilations)} and {len(pads)}"
        )
    if min(*strides, *dilations) < 1:
        raise ShapeError(f"{call.op} {call.node!r}: strides {strides} and dilations {dilations} must be positive")
    return Window(tuple(int(k) for k in kernel if isinstance(k, int)), strides, dilations, pads[:rank], pads[rank:])


def output_sizes(call: Call, sizes: Sequence[Dim], window: Window, ceil_mode: bool = False) -> tuple[Dim, ...]:
    """Number of windows per spatial dimension, by ONNX's rule; raises ShapeError when not one window fits."""
    return tuple(_output_size(call, size, window, d, ceil_mode) for d, size in enumerate(sizes))


def _output_size(call: Call, size: Dim, window: Window, d: int, ceil_mode: bool) -> Dim:
    stride = window.strides[d]
    room = as_dim(size + window.begin[d] + window.end[d] - window.extents[d])
    if isinstance(room, int) and room < 0:
        raise ShapeError(
            f"{call.op} {call.node!r}: a window over {window.extents[d]} elements does not fit into spatial "
            f"dimension {d} of size {size} with padding {window.begin[d]} and {window.end[d]}"
        )
    if not ceil_mode:
        return as_dim(room // stride + 1)
    count = (room + stride - 1) // stride + 1
    # A window that would start in the end padding is dropped.
    return as_dim(minimum(wrap(count), wrap((size + window.begin[d] + stride - 1) // stride)))


def as_dim(size: Dim) -> Dim:
    """``size`` in normal form: an int when it is known."""
    if isinstance(size, int):
        return size
    simple = simplify(size)
    return int(simple.value) if isinstance(simple, Const) else simple


def spatial_names(rank: int, prefix: str = "") -> tuple[str, ...]:
    """Names of spatial axes, innermost last: w; h, w; d, h, w."""
    return tuple(prefix + n for n in ("d", "h", "w")[3 - rank :])


def check_spatial(call: Call, rank: int, shape: Sequence[Dim], trailing: int = 0) -> None:
    """Raise ShapeError unless ``shape`` has batch, channels, ``rank`` (1 to 3) spatial and ``trailing`` dimensions."""
    if not 1 <= rank <= 3:
        raise ShapeError(f"{call.op} {call.node!r}: {rank} spatial dimensions; 1, 2 or 3 are supported")
    if len(shape) != FIRST_SPATIAL + rank + trailing:
        raise ShapeError(
            f"{call.op} {call.node!r}: the input has {len(shape)} dimensions, "
            f"but {FIRST_SPATIAL + rank + trailing} are needed"
        )


def define(
    name: str, shape: Sequence[Dim], axes: Sequence[str], body: Callable[..., ExprLike], source: str = ""
) -> Tensor:
    """``te.compute`` with the axes' names given, for functions of any number of indices."""
    indices = tuple(Axis(n, DType.INT64, d) for n, d in zip(axes, shape, strict=True))
    value = wrap(body(*indices))
    return Tensor(name, tuple(shape), value.dtype, indices, value, source)


def reduction_axes(extents: Sequence[Dim], names: Sequence[str]) -> tuple[Axis, ...]:
    """One axis to reduce over per extent."""
    return tuple(Axis(n, DType.INT64, e) for n, e in zip(names, extents, strict=True))


def widen(value: Expr) -> Expr:
    """``value`` in the type it is computed in: float32 for float16 and bfloat16, otherwise its own."""
    return cast(DType.FLOAT32, value) if value.dtype.is_half else value


def axis_names(tensor: Tensor) -> tuple[str, ...]:
    """The names of a defined tensor's axes."""
    return tuple(a.name for a in tensor.axes)


def narrow(tensor: Tensor, dtype: DType, name: str, source: str = "") -> Tensor:
    """``tensor`` converted to ``dtype``, element by element; itself when it has that type."""
    if tensor.dtype is dtype:
        return tensor
    return define(name, tensor.shape, axis_names(tensor), lambda *i: cast(dtype, tensor[i]), source)


def pad_for_windows(call: Call, x: Tensor, window: Window, fill: float, ceil_mode: bool = False) -> Tensor:
    """``x`` with the elements around it that its windows read, equal to ``fill``; ``x`` itself if there are none."""
    sizes = x.shape[FIRST_SPATIAL : FIRST_SPATIAL + window.rank]
    counts = output_sizes(call, sizes, window, ceil_mode)
    pairs = enumerate(zip(sizes, counts, strict=True))
    extents = tuple(_padded_extent(size, count, window, d, ceil_mode) for d, (size, count) in pairs)
    return pad_spatial(call, x, window.begin, extents, fill)


def _padded_extent(size: Dim, count: Dim, window: Window, d: int, ceil_mode: bool) -> Dim:
    if isinstance(size, int) and isinstance(count, int):
        needed = (count - 1) * window.strides[d] + window.extents[d]
        return needed if window.begin[d] else max(size, needed)
    # With a size known at run time only, keep the extent affine: all of the padding, and one step for ceil_mode.
    return as_dim(size + window.begin[d] + window.end[d] + (window.strides[d] - 1 if ceil_mode else 0))


def pad_spatial(call: Call, x: Tensor, begin: Sequence[Dim], extents: Sequence[Dim], fill: float) -> Tensor:
    """``NODE.padded``: spatial element ``i`` is ``x`` at ``i - begin``, or ``fill`` outside of ``x``.

    ``extents`` are the new spatial sizes. Bounds that cannot be crossed are not tested; when nothing changes, the
    result is ``x`` itself.
    """
    last = FIRST_SPATIAL + len(extents)
    sizes = x.shape[FIRST_SPATIAL:last]
    if all(b == 0 and _covers(size, extent) for b, size, extent in zip(begin, sizes, extents, strict=True)):
        return x
    names = ("n", "c", *spatial_names(len(extents)), *("ci",) * (len(x.shape) - last))

    def body(*index: Expr) -> Expr:
        inner = tuple(i - b for i, b in zip(index[FIRST_SPATIAL:last], begin, strict=True))
        tests = _within(index[FIRST_SPATIAL:last], begin, sizes, extents)
        return guarded(x[(*index[:FIRST_SPATIAL], *inner, *index[last:])], tests, fill)

    shape = (*x.shape[:FIRST_SPATIAL], *extents, *x.shape[last:])
    return define(f"{call.node}.padded", shape, names, body, call.node)


def _covers(size: Dim, extent: Dim) -> bool:
    """Whether indices below ``extent`` are surely below ``size``."""
    excess = as_dim(extent - size)
    return isinstance(excess, int) and excess <= 0


def _within(index: Sequence[Expr], begin: Sequence[Dim], sizes: Sequence[Dim], extents: Sequence[Dim]) -> list[Expr]:
    """The tests for ``begin <= index < begin + size`` that ``0 <= index < extent`` does not answer already."""
    tests: list[Expr] = []
    for i, b, size, extent in zip(index, begin, sizes, extents, strict=True):
        if not isinstance(b, int) or b > 0:
            tests.append(compare("ge", i, b))
        if not _covers(size + b, extent):
            tests.append(compare("lt", i, as_dim(size + b)))
    return tests


def guarded(value: Expr, tests: Sequence[Expr], otherwise: float = 0) -> Expr:
    """``value`` where all of ``tests`` hold, else ``otherwise``."""
    if not tests:
        return value
    return select(functools.reduce(lambda a, b: a & b, tests), value, const(otherwise, value.dtype))


def required(inputs: Sequence[Tensor | None], position: int) -> Tensor:
    """The operand at ``position``, which the shape rule has found to be there."""
    tensor = inputs[position]
    if tensor is None:
        raise TypeError(f"operand {position} is required")
    return tensor


def optional(inputs: Sequence[Tensor | None], position: int) -> Tensor | None:
    """The operand at ``position``, None when it is not given."""
    return inputs[position] if position < len(inputs) else None
