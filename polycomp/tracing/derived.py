"""numpy's functions that can be written with other functions of traced tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.errors import ShapeError, ValueNeededError
from polycomp.tracing import contraction, reductions, shaping
from polycomp.tracing.numpy_functions import clip, diff, flip, take, where
from polycomp.tracing.operands import as_tensor, cast, result_type, trace_of
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import Value
from polycomp.tracing.value import where as location

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor


def _tensors(*operands: Any) -> list[Tensor]:
    """The operands as tensors, each in its own dtype."""
    trace = trace_of(*operands)
    return [as_tensor(trace, o) for o in operands]


def _in_float64(x: Any, *others: Any) -> list[Tensor]:
    """The operands in the float dtype that numpy's statistics use: at least float64."""
    trace, dtype = trace_of(x, *others), np.result_type(result_type(x, *others), np.float64)
    return [as_tensor(trace, o, dtype) for o in (x, *others)]


def _known_size(x: Tensor, axis: int, use: str) -> int:
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise ShapeError(f"{location()}: {use} needs a known size, and dimension {axis} of {x.type} is open")
    return size


def _need_vector(x: Tensor, use: str) -> Tensor:
    if x.ndim != 1:
        raise ShapeError(f"{location()}: {use} takes tensors of 1 dimension, not {x.type}")
    return x


# Comparisons of whole tensors


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """numpy.isclose."""
    left, right = _tensors(a, b)
    right = right if right.kind.is_float else cast(right, np.float64)
    distance = call_ufunc(np.absolute, left - right)
    near = (distance <= atol + rtol * call_ufunc(np.absolute, right)) & call_ufunc(np.isfinite, right)
    close = near | (left == right)
    return close | (call_ufunc(np.isnan, left) & call_ufunc(np.isnan, right)) if equal_nan else close


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """numpy.allclose, as a tensor of the run."""
    return reductions.all(isclose(a, b, rtol, atol, equal_nan))


def array_equal(a: Any, b: Any) -> Any:
    """numpy.array_equal, as a tensor of the run; False at once for other shapes."""
    left, right = _tensors(a, b)
    return reductions.all(left == right) if left.shape == right.shape else False


# Choosing


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tensor:
    """numpy.select: of each element the first choice whose condition holds."""
    if len(condlist) != len(choicelist):
        raise ShapeError(f"{location()}: select has {len(condlist)} conditions for {len(choicelist)} choices")
    trace = trace_of(condlist, choicelist, default)
    result: Any = as_tensor(trace, default, result_type(*choicelist, default))
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = where(as_tensor(trace, condition), choice, result)
    return result  # type: ignore[no-any-return]


def _rank_in(edges: Tensor, values: Tensor, compare: np.ufunc) -> Tensor:
    """How many of the vector ``edges`` are ``compare`` (less, less_equal) than each value, as int64."""
    return reductions.sum(call_ufunc(compare, edges, shaping.expand_dims(values, -1)), -1)


def searchsorted(a: Any, v: Any, side: str = "left") -> Tensor:
    """numpy.searchsorted, by comparing each value with all of ``a``."""
    edges, values = _tensors(a, v)
    return _rank_in(_need_vector(edges, "searchsorted"), values, np.less if side == "left" else np.less_equal)


def digitize(x: Any, bins: Any, right: bool = False) -> Tensor:
    """numpy.digitize for bins that are known while tracing."""
    edges = _known_edges(bins, "digitize")
    side = "left" if right else "right"
    if edges.size < 2 or edges[0] <= edges[-1]:
        return searchsorted(edges, x, side)
    return len(edges) - searchsorted(edges[::-1], x, side)


def histogram(a: Any, bins: Any = 10, range: Any = None, density: bool = False) -> tuple[Tensor, Any]:
    """numpy.histogram whose edges are known while tracing: ``range`` is given, or ``bins`` is an array of edges."""
    (data,) = _tensors(a)
    if range is None and np.ndim(bins) == 0:
        raise ValueNeededError(
            f"{location()}: the edges of this histogram depend on the values; give range=(low, high), or edges as bins"
        )
    edges = np.histogram_bin_edges(np.empty(0, data.dtype), _known_edges(bins, "histogram"), range)
    values = shaping.reshape(data, 1, -1)
    below = reductions.sum(call_ufunc(np.less, values, edges[:-1, None]), 1)
    until = reductions.sum(call_ufunc(np.less_equal, values, edges[-1:, None]), 1)
    counts = diff(shaping.concatenate([below, until]))
    if density:
        counts = counts / np.diff(edges) / reductions.sum(counts)
    return counts, edges


def _known_edges(bins: Any, use: str) -> Any:
    if isinstance(bins, Value):
        raise ValueNeededError(f"{location()}: {use} needs edges that are known while the function is traced")
    return np.asarray(bins)


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Tensor:
    """numpy.interp, by comparing each ``x`` with all of ``xp``; in float64."""
    values, xs, ys = _in_float64(x, xp, fp)
    n = _known_size(_need_vector(xs, "interp"), 0, "interp")
    if n == 1:
        inside = shaping.broadcast_to(ys, values.shape) if values.ndim else ys[0]
    else:
        low = clip(_rank_in(xs, values, np.less_equal) - 1, 0, n - 2)
        x0, y0 = take(xs, low), take(ys, low)
        inside = (take(ys, low + 1) - y0) / (take(xs, low + 1) - x0) * (values - x0) + y0
    above = where(values == xs[-1], ys[-1], ys[-1] if right is None else right)
    return where(values < xs[0], ys[0] if left is None else left, where(values >= xs[-1], above, inside))


# Reductions


def _without_nan(x: Tensor, instead: float) -> Tensor:
    return where(call_ufunc(np.isnan, x), instead, x) if x.kind.is_float else x


def nansum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum of what is not NaN."""
    return reductions.sum(_without_nan(x, 0.0), axis, keepdims=keepdims)


def nanmean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean of what is not NaN; NaN where nothing is."""
    if not x.kind.is_float:
        return reductions.mean(x, axis, keepdims=keepdims)
    count = reductions.sum(~call_ufunc(np.isnan, x), axis, keepdims=keepdims)
    return nansum(x, axis, keepdims) / cast(count, x.dtype)


def _nan_extreme(reduce: Callable[..., Tensor], instead: float) -> Callable[..., Tensor]:
    def rule(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        if not x.kind.is_float:
            return reduce(x, axis, keepdims)
        nothing = reductions.all(call_ufunc(np.isnan, x), axis, keepdims)
        return where(nothing, np.nan, reduce(_without_nan(x, instead), axis, keepdims))

    return rule


nanmax, nanmin = _nan_extreme(reductions.max, -np.inf), _nan_extreme(reductions.min, np.inf)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Tensor:
    """numpy.trapezoid: the integral along a dimension by the trapezoidal rule."""
    operands = _tensors(y) if x is None else _tensors(y, x)
    data, number = operands[0], shaping.axis_number(axis, operands[0].ndim)
    widths = dx
    if x is not None:
        places = operands[1]
        steps = diff(places, axis=0 if places.ndim == 1 else axis)
        widths = shaping.reshape(steps, -1, *(1,) * (data.ndim - 1 - number)) if places.ndim == 1 else steps
    before = (slice(None),) * number
    heights = data[(*before, slice(1, None))] + data[(*before, slice(None, -1))]
    return reductions.sum(widths * heights / 2.0, number)


def cov(m: Tensor, rowvar: bool = True, bias: bool = False, ddof: int | None = None) -> Tensor:
    """numpy.cov of one table: the covariances of its rows, or of its columns."""
    (table,) = _in_float64(m)
    table = shaping.reshape(table, 1, -1) if table.ndim < 2 else table if rowvar else shaping.transpose(table)
    centred = table - reductions.mean(table, 1, keepdims=True)
    freedom = (0 if bias else 1) if ddof is None else ddof
    products = contraction.matmul(centred, shaping.transpose(centred)) / (table.shape[1] - freedom)
    return shaping.squeeze(products) if m.ndim < 2 else products


def corrcoef(x: Tensor, rowvar: bool = True) -> Tensor:
    """numpy.corrcoef of one table."""
    products = cov(x, rowvar)
    if products.ndim == 0:
        return products / products
    deviations = call_ufunc(np.sqrt, contraction.diagonal(products))
    return clip(products / shaping.expand_dims(deviations, 1) / deviations, -1, 1)


# Products and polynomials


def cross(a: Any, b: Any, axis: int = -1) -> Tensor:
    """numpy.cross of vectors of three elements."""
    left, right = (shaping.moveaxis(t, axis, -1) for t in _tensors(a, b))
    if left.type.shape[-1] != 3 or right.type.shape[-1] != 3:
        raise ShapeError(f"{location()}: cross takes vectors of 3 elements, not {left.type} and {right.type}")
    (a0, a1, a2), (b0, b1, b2) = ([t[..., i] for i in range(3)] for t in (left, right))
    return shaping.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis)


def kron(a: Any, b: Any) -> Tensor:
    """numpy.kron: every element of ``a`` times the whole of ``b``."""
    left, right = _tensors(a, b)
    rank = max(left.ndim, right.ndim)
    outer = (*(1,) * (rank - left.ndim), *left.type.shape)
    inner = (*(1,) * (rank - right.ndim), *right.type.shape)
    spread = shaping.reshape(left, tuple(n for size in outer for n in (size, 1)))
    repeated = shaping.reshape(right, tuple(n for size in inner for n in (1, size)))
    return shaping.reshape(spread * repeated, tuple(p * q for p, q in zip(outer, inner, strict=True)))


def matrix_power(a: Tensor, n: int) -> Tensor:
    """numpy.linalg.matrix_power for ``n >= 0``, by squaring."""
    if n < 0:
        raise ShapeError(f"{location()}: matrix_power needs a power that is not negative, not {n}")
    if n == 0:
        return shaping.broadcast_to(
            as_tensor(a.owner, np.eye(_known_size(a, -1, "an identity"), dtype=a.dtype)), a.shape
        )
    if n == 1:
        return a
    half = matrix_power(a, n // 2)
    square = contraction.matmul(half, half)
    return contraction.matmul(square, a) if n % 2 else square


def polyval(p: Any, x: Any) -> Tensor:
    """numpy.polyval, by Horner's rule; the highest power comes first."""
    coefficients = p if isinstance(p, Value) else np.asarray(p)
    trace = trace_of(p, x)
    value: Any = as_tensor(trace, x) * 0
    for coefficient in coefficients:  # type: ignore[union-attr]
        value = call_ufunc(np.add, value * x, coefficient)
    return value  # type: ignore[no-any-return]


def sinc(x: Tensor) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0."""
    angle = x * np.pi
    safe = where(angle == 0, 1, angle)
    return where(angle == 0, 1, call_ufunc(np.sin, safe) / safe)


def convolve(a: Any, v: Any, mode: str = "full") -> Tensor:
    """numpy.convolve; the shorter of the two must be of known length."""
    data, kernel = (_need_vector(t, "convolve") for t in _tensors(a, v))
    n, k = data.type.shape[0], kernel.type.shape[0]
    if isinstance(n, int) and (not isinstance(k, int) or k > n):
        data, kernel = kernel, data
    k = _known_size(kernel, 0, "the shorter operand of convolve")
    left = {"full": k - 1, "same": k - 1 - (k - 1) // 2, "valid": 0}
    if mode not in left:
        raise ShapeError(f"{location()}: the mode of convolve is full, same or valid, not {mode!r}")
    right = {"full": k - 1, "same": (k - 1) // 2, "valid": 0}
    return _correlated(data, flip(kernel), (left[mode], right[mode]))


def correlate(a: Any, v: Any, mode: str = "valid") -> Tensor:
    """numpy.correlate, where ``v`` is not the longer one."""
    data, kernel = (_need_vector(t, "correlate") for t in _tensors(a, v))
    n, k = data.type.shape[0], _known_size(kernel, 0, "the second operand of correlate")
    if isinstance(n, int) and n < k:
        raise ShapeError(f"{location()}: the second operand of correlate is longer than the first: {k} and {n}")
    return convolve(data, flip(kernel), mode)


def _correlated(data: Tensor, kernel: Tensor, pads: tuple[int, int]) -> Tensor:
    dtype = result_type(data, kernel)
    data, kernel = cast(data, dtype), cast(kernel, dtype)
    if not data.kind.is_float:
        padded = shaping.pad(data, (pads,))
        return contraction.matmul(sliding_window_view(padded, kernel.type.shape[0]), kernel)
    rows, weights = (shaping.reshape(t, 1, 1, -1) for t in (data, kernel))
    result = emit("Conv", rows, weights, strides=(1,), dilations=(1,), group=1, pads=pads)
    return shaping.reshape(result, -1)


# Shapes


def sliding_window_view(x: Tensor, window_shape: Any, axis: Any = None) -> Tensor:
    """All windows of a size, as new last dimensions (a copy)."""
    windows = window_shape if isinstance(window_shape, tuple | list) else (window_shape,)
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    if len(axes) != len(windows):
        raise ShapeError(f"{location()}: {len(windows)} window sizes were given for {len(axes)} axes")
    for size, number in zip(windows, [shaping.axis_number(a, x.ndim) for a in axes], strict=True):
        n = _known_size(x, number, "sliding_window_view")
        if not 0 <= size <= n:
            raise ShapeError(f"{location()}: a window of {size} does not fit dimension {number} of {x.type}")
        positions = np.arange(n - size + 1)[:, None] + np.arange(size)
        gathered = emit("Gather", x, as_tensor(x.owner, positions), axis=number)
        x = shaping.moveaxis(gathered, number + 1, -1)
    return x


def meshgrid(*xi: Any, indexing: str = "xy", sparse: bool = False, copy: bool = True) -> tuple[Tensor, ...]:
    """numpy.meshgrid of vectors."""
    vectors = [shaping.reshape(t, -1) for t in _tensors(*xi)]
    swapped = indexing == "xy" and len(vectors) > 1
    order = [1, 0, *range(2, len(vectors))] if swapped else list(range(len(vectors)))
    grids = [
        shaping.reshape(t, tuple(-1 if d == order[i] else 1 for d in range(len(vectors))))
        for i, t in enumerate(vectors)
    ]
    if sparse:
        return tuple(grids)
    sizes = [t.shape[0] for t in vectors]
    shape = tuple(sizes[order[d]] for d in range(len(vectors)))
    return tuple(shaping.broadcast_to(g, shape) for g in grids)


def unravel_index(indices: Any, shape: Any) -> tuple[Tensor, ...]:
    """numpy.unravel_index: positions in the flattened array as positions in ``shape``."""
    (rest,) = _tensors(indices)
    places = []
    for size in reversed(shape[1:]):
        places.append(rest % size)
        rest = rest // size
    return (rest, *reversed(places))


def rot90(m: Tensor, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by 90 degrees ``k`` times, from the first of ``axes`` towards the second."""
    for _ in range(k % 4):
        m = flip(shaping.swapaxes(m, *axes), axes[0])
    return m


def rollaxis(a: Tensor, axis: int, start: int = 0) -> Tensor:
    """numpy.rollaxis."""
    number, place = shaping.axis_number(axis, a.ndim), start + a.ndim if start < 0 else start
    return shaping.moveaxis(a, number, place - 1 if number < place else place)


def append(arr: Any, values: Any, axis: int | None = None) -> Tensor:
    """numpy.append."""
    return shaping.concatenate([arr, values], axis)


def dstack(tensors: Sequence[Any]) -> Tensor:
    """Tables one behind the other."""
    tables = [t if t.ndim > 2 else shaping.expand_dims(_table(t), 2) for t in _tensors(*tensors)]
    return shaping.concatenate(tables, 2)


def _table(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else shaping.reshape(x, 1, -1)


def block(arrays: Any) -> Tensor:
    """numpy.block: nested lists of tensors, the innermost side by side."""
    depth = _depth(arrays)
    parts = functools.partial(_joined, trace=trace_of(arrays), rank=max(depth, _rank(arrays)))
    return parts(arrays, -depth)


def _depth(arrays: Any) -> int:
    return 1 + _depth(arrays[0]) if isinstance(arrays, list) else 0


def _rank(arrays: Any) -> int:
    return max(map(_rank, arrays)) if isinstance(arrays, list) else int(np.ndim(arrays))


def _joined(arrays: Any, axis: int, *, trace: Any, rank: int) -> Tensor:
    if isinstance(arrays, list):
        return shaping.concatenate([_joined(a, axis + 1, trace=trace, rank=rank) for a in arrays], axis)
    tensor = as_tensor(trace, arrays)
    return shaping.reshape(tensor, (*(1,) * (rank - tensor.ndim), *tensor.type.shape))
