"""What the schedule library needs to know about a kernel's tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.dtypes import DType
from polycomp.expr import (
    Binary,
    Cast,
    Const,
    Expr,
    Load,
    Reduce,
    Select,
    Unary,
    free_vars,
    linear_in,
    loads,
    simplify,
    walk,
    wrap,
)
from polycomp.te import Axis, Dim, Tensor, topological_order

# Unary operations that cost many instructions: not worth repeating for every reader.
_EXPONENTIAL = ("exp", "expm1", "exp2", "log", "log1p", "log2", "sigmoid", "erf", "sqrt", "rsqrt")
_TRIGONOMETRIC = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
_EXPENSIVE = frozenset((*_EXPONENTIAL, *_TRIGONOMETRIC))


_LONG_ROW = 32  # elements: two vectors or more


@dataclasses.dataclass(frozen=True)
class Contraction:
    """A sum of products of two loads. ``vector`` is the operand read along the output's last axis, ``other`` the
    operand that (usually) is not. ``dot`` is the reduction axis, if there is one, whose few narrow products make one
    step of the sum."""

    tensor: Tensor
    vector: Load
    other: Load
    dot: Axis | None = None

    @property
    def step_axes(self) -> tuple[Axis, ...]:
        """The reduction axes that are stepped along: all but ``dot``."""
        return tuple(a for a in self.tensor.reduce_axes if a != self.dot)

    def step_bytes(self, operand: Load) -> int:
        """Bytes that a step of the sum reads of ``operand`` for one element of the result."""
        return operand.dtype.bytes * (1 if self.dot is None else constant(self.dot.extent) or 1)


def as_contraction(tensor: Tensor) -> Contraction | None:
    """``tensor`` as a contraction, or None when it is something else: a sum of another kind, or dot products of rows
    in memory with one vector, which are reductions (vectors of a contraction would be gathered from many rows)."""
    body = tensor.body
    if not isinstance(body, Reduce) or body.op != "sum" or not tensor.axes:
        return None
    product = body.operand
    if not isinstance(product, Binary) or product.op != "mul":
        return None
    left, right = _plain_load(product.left), _plain_load(product.right)
    if left is None or right is None:
        return None
    last = tensor.axes[-1]
    pairs = ((left, right), (right, left))
    for vector, other in pairs:
        if _is_own(last, vector, other):
            if _are_dot_products(tensor, vector, other):
                return None
            return Contraction(tensor, vector, other, _dot_axis(tensor, vector, other))
    for vector, other in pairs:  # depthwise: both run along the vectors, one of them serves several rows
        if depends_on(vector, last) and depends_on(other, last) and any(_is_own(a, other, vector) for a in tensor.axes):
            return Contraction(tensor, vector, other)
    return None


def _are_dot_products(tensor: Tensor, vector: Load, other: Load) -> bool:
    """Whether each result is a row of ``vector``, long and in one piece, times what is the same for all of them."""
    depth = constant(tensor.reduce_axes[-1].extent)
    long = len(tensor.reduce_axes) == 1 and (depth is None or depth >= _LONG_ROW)
    along = stride_of(vector, tensor.reduce_axes[-1]) == 1 != stride_of(vector, tensor.axes[-1])
    return long and along and not any(_is_own(a, other, vector) for a in tensor.axes)


def _dot_axis(tensor: Tensor, vector: Load, other: Load) -> Axis | None:
    """The last reduction axis, when its products are those of the parts of words: as many neighbouring bytes of both
    operands as the sum has, the words of the vector operand side by side."""
    axis, last = tensor.reduce_axes[-1], tensor.axes[-1]
    count = constant(axis.extent)
    narrow = all(x.dtype in (DType.INT8, DType.UINT8) for x in (vector, other)) and tensor.dtype is DType.INT32
    if not narrow or count != tensor.dtype.bytes:
        return None
    strides = (stride_of(vector, axis), stride_of(other, axis), stride_of(vector, last))
    return axis if strides == (1, 1, count) else None


def _is_own(axis: Axis, operand: Load, other: Load) -> bool:
    """Whether ``operand`` alone runs along ``axis``."""
    return depends_on(operand, axis) and not depends_on(other, axis) and constant(axis.extent) != 1


def _plain_load(e: Expr) -> Load | None:
    """The load that ``e`` is, perhaps converted, or zero where a condition does not hold."""
    while isinstance(e, Cast):
        e = e.operand
    if isinstance(e, Select) and isinstance(e.on_false, Const) and not e.on_false.value:
        return _plain_load(e.on_true)
    return e if isinstance(e, Load) else None


def depends_on(e: Expr, axis: Axis) -> bool:
    """Whether ``e`` uses ``axis``."""
    return axis in free_vars(e)


def is_reduction(tensor: Tensor) -> bool:
    """Whether ``tensor`` is defined by a reduction."""
    return isinstance(tensor.body, Reduce)


def is_expensive(tensor: Tensor) -> bool:
    """Whether an element of ``tensor`` takes many instructions to compute."""
    return tensor.body is not None and any(
        (isinstance(e, Unary) and e.op in _EXPENSIVE) or (isinstance(e, Binary) and e.op in ("pow", "atan2", "fmod"))
        for e in walk(tensor.body)
    )


def readers(order: Sequence[Tensor]) -> dict[Tensor, list[Tensor]]:
    """The tensors that read each tensor, each reader once."""
    found: dict[Tensor, list[Tensor]] = {t: [] for t in order}
    for tensor in order:
        for source in tensor.inputs():
            found[source].append(tensor)
    return found


def computed(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """All tensors with a definition, producers first."""
    return tuple(t for t in topological_order(outputs) if t.body is not None)


def stride_of(load: Load, axis: Axis) -> int | None:
    """Elements between neighbours along ``axis`` in row-major memory; None when that is not constant.

    An index ``axis % f`` counts like ``axis`` (it is one within a tile of f).
    """
    total = 0
    stride: Dim = 1
    for index, dim in zip(reversed(load.indices), reversed(load.source.shape), strict=True):
        if depends_on(index, axis):
            step = _step(index, axis)
            if step is None or not isinstance(stride, int):
                return None
            total += step * stride
        stride = stride * dim if isinstance(stride, int) and isinstance(dim, int) else wrap(stride) * dim
    return total


def _step(index: Expr, axis: Axis) -> int | None:
    linear = linear_in(index, axis)
    if linear is not None:
        return linear[0]
    if isinstance(index, Binary) and isinstance(index.right, Const) and index.left == axis:
        return 1 if index.op == "floormod" else 0 if index.op == "floordiv" else None
    return None


def constant(dim: Dim) -> int | None:
    """The value of a constant size, else None."""
    if isinstance(dim, int):
        return dim
    reduced = simplify(dim)
    return int(reduced.value) if isinstance(reduced, Const) else None


def reads_tensor(reader: Tensor, source: Tensor) -> tuple[Load, ...]:
    """The loads of ``source`` in the definition of ``reader``."""
    return () if reader.body is None else tuple(x for x in loads(reader.body) if x.source is source)


def points_read(reader: Tensor, source: Tensor) -> frozenset[tuple[Expr, ...]]:
    """The different elements of ``source`` that an element of ``reader`` is made of."""
    return frozenset(load.indices for load in reads_tensor(reader, source))


def access_number(reader: Tensor, load: Load) -> int:
    """Which of the accesses of ``reader`` to the load's tensor ``load`` is; see ``Schedule.cache_read``."""
    return list(dict.fromkeys(reads_tensor(reader, load.source))).index(load)
