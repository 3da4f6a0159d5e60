"""Tensor expressions evaluated with numpy: constants folded while compiling, and the oracle of tests.

Every tensor is computed over its whole iteration grid at once: an axis is an open index array of its own grid dimension
and operands broadcast. The outer axes are cut in chunks so that temporaries stay bounded.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import ExecutionError, ExpressionError, InputError, ShapeError
from polycomp.expr import (
    Binary,
    Cast,
    CheckedIndex,
    Compare,
    Const,
    Expr,
    Load,
    Reduce,
    Select,
    Unary,
    Var,
)
from polycomp.te.tensor import Axis, Dim, Tensor, reduce_identity, topological_order

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 21
"""Most grid points evaluated at once."""

_PRODUCT_CHUNK = 1 << 24
"""The same for sums of products, whose operands are seldom as large as the grid."""


def evaluate(
    outputs: Sequence[Tensor], feeds: Mapping[Tensor, Array], sizes: Mapping[Var, int] | None = None
) -> list[Array]:
    """The values of ``outputs``, given one array per placeholder (or per any tensor) and the ints of size variables.

    float32 and float16 sums are accumulated in float64 unless they are sums of products. Raises
    :class:`InputError` for a placeholder without a value, :class:`ShapeError` for one of a wrong shape,
    :class:`ExecutionError` for an index out of range.
    """
    values: dict[Tensor, Array] = {}
    with np.errstate(all="ignore"):
        for tensor in topological_order(outputs):
            values[tensor] = _value_of(tensor, values, feeds, sizes or {})
    return [values[t] for t in outputs]


def evaluate_dim(dim: Dim, sizes: Mapping[Var, int]) -> int:
    """The int that ``dim`` is when size variables have the values ``sizes``."""
    return int(_Grid({}, {}, sizes, ()).value(dim)) if isinstance(dim, Expr) else dim


def apply(e: Expr, *operands: Array) -> Array:
    """A unary, binary, comparison or cast node on the values of its operands, as numpy computes it."""
    match e:
        case Binary() | Compare():
            return _typed(_BINARY[e.op](*operands), e)
        case Unary():
            return _typed(_UNARY[e.op](*operands), e)
        case Cast():
            return _typed(operands[0], e)
    raise ExpressionError(f"a {type(e).__name__} is no operation on values")


def _value_of(
    tensor: Tensor, values: dict[Tensor, Array], feeds: Mapping[Tensor, Array], sizes: Mapping[Var, int]
) -> Array:
    shape = tuple(evaluate_dim(d, sizes) for d in tensor.shape)
    if tensor not in feeds:
        if tensor.body is None:
            raise InputError(f"no value was given for the input {tensor.name!r}")
        return _compute(tensor, shape, values, sizes)
    array = np.asarray(feeds[tensor], dtype=tensor.dtype.numpy)
    if array.shape != shape:
        raise ShapeError(f"input {tensor.name!r} has shape {list(shape)}, but the given array {list(array.shape)}")
    return array


def _compute(tensor: Tensor, shape: tuple[int, ...], values: dict[Tensor, Array], sizes: Mapping[Var, int]) -> Array:
    body = cast(Expr, tensor.body)
    axes = (*tensor.axes, *tensor.reduce_axes)
    reduced = tuple(evaluate_dim(a.extent, sizes) for a in tensor.reduce_axes)
    result = np.empty(shape, tensor.dtype.numpy)
    inner, limit = math.prod(reduced), _PRODUCT_CHUNK if _is_sum_of_products(body) else _CHUNK
    if tensor.is_recurrence:  # one step of time after the other
        values, inner, limit = {**values, tensor: result}, 1, min(limit, math.prod(shape[1:]))
    for window in _chunks(shape, inner, limit):
        windows = dict(zip(axes, (*window, *((0, n) for n in reduced)), strict=True))
        grid = _Grid(values, windows, sizes, tuple(hi - lo for lo, hi in windows.values()))
        part = _reduce(body, grid, len(shape)) if isinstance(body, Reduce) else grid.value(body)
        result[tuple(slice(lo, hi) for lo, hi in window)] = part
    return result


def _chunks(shape: tuple[int, ...], inner: int, limit: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Boxes that cover ``shape``, of about ``limit`` points each when every point costs ``inner``."""
    steps: list[int] = []
    cost = max(inner, 1)
    for extent in reversed(shape):
        steps.insert(0, max(1, min(extent, limit // cost)))
        cost *= steps[0]
    ranges = [
        [(lo, min(lo + step, extent)) for lo in range(0, extent, step)]
        for extent, step in zip(shape, steps, strict=True)
    ]
    yield from itertools.product(*ranges)


@dataclasses.dataclass
class _Grid:
    """Evaluates expressions at all points of a box of axes.

    ``mask`` holds the points at which a value is wanted: out of it, indices may leave their tensor.
    """

    values: Mapping[Tensor, Array]
    windows: Mapping[Axis, tuple[int, int]]
    sizes: Mapping[Var, int]
    shape: tuple[int, ...]
    mask: Array | None = None
    memo: dict[int, Array] = dataclasses.field(default_factory=dict)

    def value(self, e: Expr) -> Array:
        """The values of ``e``: an array that broadcasts to the grid."""
        known = self.memo.get(id(e))
        if known is None:
            known = self.memo[id(e)] = np.asarray(self._node(e))
        return known

    def _node(self, e: Expr) -> Array:
        match e:
            case Const():
                return np.asarray(e.value, e.dtype.numpy)
            case Var():
                return self._variable(e)
            case Load():
                return self._load(e)
            case Binary() | Compare():
                return apply(e, self.value(e.left), self.value(e.right))
            case Unary() | Cast():
                return apply(e, self.value(e.operand))
            case Select():
                return self._select(e)
            case CheckedIndex():
                index = self.value(e.index)
                self._check(index, self.value(e.size), ExecutionError("an index lies outside of its tensor"))
                return index
        raise ExpressionError(f"a {type(e).__name__} cannot stand inside an expression")

    def _variable(self, var: Var) -> Array:
        if not isinstance(var, Axis):
            if var not in self.sizes:
                raise InputError(f"no value was given for the size {var.name!r}")
            return np.asarray(self.sizes[var], np.int64)
        position = list(self.windows).index(var)
        lo, hi = self.windows[var]
        return np.arange(lo, hi, dtype=np.int64).reshape([-1 if d == position else 1 for d in range(len(self.windows))])

    def _check(self, index: Array, size: Array, error: Exception) -> None:
        outside = (index < 0) | (index >= size)
        if np.any(outside if self.mask is None else outside & self.mask):
            raise error

    def _select(self, e: Select) -> Array:
        condition = self.value(e.condition)
        if condition.ndim == 0:
            return self.value(e.on_true if condition else e.on_false)
        sides = ((condition, e.on_true), (~condition, e.on_false))
        chosen = (self._masked(mask).value(side) for mask, side in sides)
        return np.where(condition, *chosen)

    def _masked(self, condition: Array) -> _Grid:
        mask = condition if self.mask is None else condition & self.mask
        return dataclasses.replace(self, mask=mask, memo=dict(self.memo))

    def _load(self, load: Load) -> Array:
        array = self.values[load.source]
        viewed = self._view(array, load.indices)
        if viewed is not None:
            return viewed
        indices = [self.value(i) for i in load.indices]
        for index, size in zip(indices, array.shape, strict=True):
            self._check(index, np.asarray(size), ExecutionError(f"{load} lies outside of {list(array.shape)}"))
        if array.size == 0:
            return np.zeros(np.broadcast_shapes(*(i.shape for i in indices)), array.dtype)
        clipped = [np.clip(i, 0, n - 1) for i, n in zip(indices, array.shape, strict=True)]
        return cast(Array, array[tuple(clipped)])

    def _view(self, array: Array, indices: tuple[Expr, ...]) -> Array | None:
        """The load without copying, when its indices are different axes and literals; else None."""
        axes = [i for i in indices if isinstance(i, Axis)]
        if len(set(axes)) < len(axes) or any(not isinstance(i, Axis | Const) for i in indices):
            return None
        bounds = [self.windows[i] if isinstance(i, Axis) else (_literal(i), _literal(i) + 1) for i in indices]
        if any(lo < 0 or hi > size for (lo, hi), size in zip(bounds, array.shape, strict=True)):
            return None
        part = array[tuple(slice(*b) if isinstance(i, Axis) else b[0] for i, b in zip(indices, bounds, strict=True))]
        order = list(self.windows)
        part = part.transpose(sorted(range(len(axes)), key=lambda d: order.index(axes[d])))
        return part.reshape([hi - lo if axis in axes else 1 for axis, (lo, hi) in self.windows.items()])


def _literal(e: Expr) -> int:
    return int(cast(Const, e).value)


def _typed(value: Array, e: Expr) -> Array:
    return np.asarray(value).astype(e.dtype.numpy, copy=False)


def _is_sum_of_products(body: Expr) -> bool:
    if not isinstance(body, Reduce) or body.op != "sum":
        return False
    return isinstance(body.operand, Binary) and body.operand.op == "mul"


def _reduce(body: Reduce, grid: _Grid, rank: int) -> Array:
    """The reduction over all grid dimensions from ``rank`` on."""
    if _is_sum_of_products(body):
        product = cast(Binary, body.operand)
        return _sum_of_products(grid.value(product.left), grid.value(product.right), grid.shape, rank)
    operand = np.broadcast_to(grid.value(body.operand), grid.shape)
    identity = reduce_identity(body.op, body.dtype).value
    accumulator = DType.FLOAT64.numpy if body.op == "sum" and body.dtype.is_float else body.dtype.numpy
    initial = np.asarray(identity).astype(accumulator)[()]
    wide = operand.astype(accumulator, copy=False)
    return np.asarray(_REDUCE[body.op].reduce(wide, axis=tuple(range(rank, wide.ndim)), initial=initial))


def _sum_of_products(a: Array, b: Array, shape: tuple[int, ...], rank: int) -> Array:
    """``sum(a * b)`` over the dimensions from ``rank`` on, as a batch of matrix products.

    Dimensions that only one operand has are its rows (or are summed before), common ones are the batch (or the
    contraction).
    """
    a, b = (x.reshape((1,) * (len(shape) - x.ndim) + x.shape) for x in (a, b))
    summed = range(rank, len(shape))
    repeats = math.prod(shape[d] for d in summed if a.shape[d] == b.shape[d] == 1)
    only_a, only_b = (
        [d for d in range(len(shape)) if x.shape[d] != 1 and y.shape[d] == 1] for x, y in ((a, b), (b, a))
    )
    a = a.sum(tuple(d for d in only_a if d >= rank), keepdims=True, dtype=a.dtype)
    b = b.sum(tuple(d for d in only_b if d >= rank), keepdims=True, dtype=b.dtype)
    rows, columns = ([d for d in dims if d < rank] for dims in (only_a, only_b))
    batch = [d for d in range(rank) if a.shape[d] == b.shape[d]]
    count, m, n, k = (
        math.prod(x.shape[d] for d in dims) for x, dims in ((a, batch), (a, rows), (b, columns), (a, summed))
    )
    left = a.transpose([*batch, *rows, *columns, *summed]).reshape(count, m, k)
    right = b.transpose([*batch, *rows, *summed, *columns]).reshape(count, k, n)
    product = np.matmul(left, right) * np.asarray(repeats, a.dtype)
    order = [*batch, *rows, *columns]
    shaped = product.reshape([np.maximum(a.shape[d], b.shape[d]) for d in order])
    return cast(Array, shaped.transpose(np.argsort(order)) if order else shaped)


def _truncated_quotient(a: Array, b: Array) -> Array:
    return cast(Array, (a - np.fmod(a, b)) // b)


def _power(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        return np.float_power(a, b)
    return cast(Array, np.power(a, b))


def _erf(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(x.dtype)


def _sigmoid(x: Array) -> Array:
    return cast(Array, 1 / (1 + np.exp(-x)))


_BINARY: Mapping[str, Callable[[Array, Array], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "truncdiv": _truncated_quotient,
    "truncmod": np.fmod,
    "floordiv": np.floor_divide,
    "floormod": np.remainder,
    "fmod": np.fmod,
    "pow": _power,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "atan2": np.arctan2,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}

_UNARY: Mapping[str, Callable[[Array], Any]] = {
    "neg": np.negative,
    "not": np.invert,
    "abs": np.abs,
    "sign": np.sign,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "exp2": np.exp2,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "isnan": np.isnan,
    "isinf_pos": np.isposinf,
    "isinf_neg": np.isneginf,
    "sigmoid": _sigmoid,
}

_REDUCE: Mapping[str, np.ufunc] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}
