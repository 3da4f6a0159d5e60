"""Tensors defined by expressions: ``placeholder``, ``compute`` and ``reduce_axis``.

The vocabulary (placeholder, compute, reduce axis) follows Halide and TVM's tensor expressions.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

from polycomp.dtypes import DType, DTypeLike, as_dtype
from polycomp.errors import DTypeError, ExpressionError, ShapeError
from polycomp.expr import (
    CheckedIndex,
    Const,
    Expr,
    ExprLike,
    Load,
    Reduce,
    Var,
    cast,
    const,
    free_vars,
    loads,
    node,
    simplify,
    walk,
    wrap,
)

Dim = int | Expr
"""A size: an int, or an int64 expression over size variables that are bound at run time."""


@node
class Axis(Var):
    """One dimension of an iteration space, usable as an index: it runs over ``0 <= axis < extent``."""

    extent: Dim = 1


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Tensor:
    """An array value: a placeholder (``body`` is None), or defined by ``body`` at the point ``axes``.

    ``shape`` has one :data:`Dim` per dimension. Tensors compare by identity. ``source`` says where the tensor
    comes from (an ONNX node name or a Python line) and reaches errors, profiles and comments in emitted code.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: DType
    axes: tuple[Axis, ...] = ()
    body: Expr | None = None
    source: str = ""

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: ExprLike | tuple[ExprLike, ...]) -> Expr:
        """The element at ``indices``, one int64 expression (or int) per dimension; ``()`` for a scalar.

        An index that depends on data is checked when the code runs: outside of the tensor it fails the run.
        """
        index = indices if isinstance(indices, tuple) else (indices,)
        wrong = [i for i in index if isinstance(i, slice | EllipsisType | None)]
        if wrong:
            raise ExpressionError(
                f"tensor {self.name!r} is indexed by {_index_text(wrong[0])}, which gives more than one element; a "
                f"definition is of one element: use the function's indices"
            )
        text = ", ".join(map(str, index))
        if len(index) != len(self.shape):
            raise ShapeError(
                f"tensor {self.name!r} has {len(self.shape)} dimensions, which {self.name}[{text}] does not fit; "
                f"give one index per dimension"
            )
        indices = tuple(wrap(i) for i in index)
        if [i for i in indices if not i.dtype.is_integer]:
            raise DTypeError(f"tensor {self.name!r} is indexed by {text}: an index is an integer; cast it to int64")
        return Load(self, tuple(_within(i, n) for i, n in zip(indices, self.shape, strict=True)))

    def _whole(self, other: object = None) -> Expr:
        """Arithmetic is on elements."""
        indices = ", ".join("ijkl"[: self.rank]) if self.rank <= 4 else "..."
        raise ExpressionError(
            f"tensor {self.name!r} is used as a whole in an expression; take an element of it: {self.name}[{indices}]"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _whole
    __lt__ = __le__ = __gt__ = __ge__ = __matmul__ = __rmatmul__ = __pow__ = __rpow__ = _whole

    def inputs(self) -> tuple[Tensor, ...]:
        """The other tensors that ``body`` loads from, each once, in order of first use."""
        found = () if self.body is None else (load.source for load in loads(self.body))
        return tuple(dict.fromkeys(source for source in found if source is not self))

    @property
    def is_recurrence(self) -> bool:
        """Whether the tensor is defined by elements of itself."""
        return self.body is not None and self in [load.source for load in loads(self.body)]

    @property
    def reduce_axes(self) -> tuple[Axis, ...]:
        """The axes reduced over; empty when the body is not a reduction."""
        return self.body.axes if isinstance(self.body, Reduce) else ()

    def __repr__(self) -> str:
        dims = ", ".join(str(d) for d in self.shape)
        head = f"{self.name}: {self.dtype.value}[{dims}]"
        if self.body is None:
            return head
        return f"{head} [{', '.join(a.name for a in self.axes)}] = {self.body}"


def _index_text(index: object) -> str:
    return "..." if index is Ellipsis else ":" if index == slice(None) else str(index)


def _within(index: Expr, extent: Dim) -> Expr:
    """``index``, checked if what it reads decides it: no proof can tell that data lies inside of a tensor."""
    return CheckedIndex(cast(DType.INT64, index), wrap(extent)) if _reads(index) else index


def _reads(index: Expr) -> bool:
    if isinstance(index, Load | CheckedIndex):
        return isinstance(index, Load)
    return True in map(_reads, index.operands)  # any is the reduction here


def placeholder(shape: Sequence[Dim], dtype: DTypeLike = DType.FLOAT32, name: str = "input") -> Tensor:
    """An input tensor of ``shape``."""
    return Tensor(name, _checked_shape(shape, name), as_dtype(dtype))


def _checked_shape(shape: Sequence[Dim], name: str) -> tuple[Dim, ...]:
    if not isinstance(shape, tuple | list):
        raise ShapeError(f"the shape of {name!r} is {shape!r}; a shape is a tuple of sizes, such as ({shape},)")
    return tuple(d if isinstance(d, Expr) else _extent(d, f"dimension {i} of {name!r}") for i, d in enumerate(shape))


def _extent(dim: Dim, what: str) -> Dim:
    """A size as an int. Raises :class:`ShapeError` for what is no size."""
    if isinstance(dim, Expr):
        return dim
    try:
        known = operator.index(dim)
    except TypeError:
        raise ShapeError(f"{what} is {dim!r}; a size is an int, or an expression over pc.size(...)") from None
    if known < 0:
        raise ShapeError(f"{what} is {known}; a size is at least 0")
    return known


def reduce_axis(extent: Dim, name: str = "k") -> Axis:
    """An axis to reduce over, ``0 <= axis < extent``; within one ``compute`` all axes have different names."""
    return Axis(name, DType.INT64, _extent(extent, f"the extent of axis {name!r}"))


def size(name: str) -> Var:
    """A size that is known only when the code runs: a dimension of an input tells it."""
    return Var(name)


def compute(shape: Sequence[Dim], body: Callable[..., ExprLike], name: str = "", source: str = "") -> Tensor:
    """The tensor whose element at ``(i, j, ...)`` is ``body(i, j, ...)``.

    ``body`` takes one int64 index per dimension of ``shape`` (or ``*indices``), and its parameter names become the
    axes' names. A reduction (:func:`sum` and its like) may only be the outermost expression.
    Raises :class:`ExpressionError` for a wrong number of indices, repeated axis names or a nested reduction.
    """
    what = name or getattr(body, "__name__", "compute")
    extents = _checked_shape(shape, what)
    axes = tuple(Axis(n, DType.INT64, d) for n, d in zip(_axis_names(body, len(extents), what), extents, strict=True))
    value = _as_value(body(*axes), what)
    _check_reductions(value, axes, what)
    return Tensor(name or "computed", extents, value.dtype, axes, value, source)


def _as_value(result: Any, name: str) -> Expr:
    """What a tensor's function returned, as an expression. Raises :class:`ExpressionError`."""
    if isinstance(result, Tensor):
        result._whole()
    if not isinstance(result, Expr | int | float):
        raise ExpressionError(f"the function of tensor {name!r} returned {result!r} instead of the value of an element")
    return wrap(result)


def recurrence(
    shape: Sequence[Dim],
    body: Callable[..., ExprLike],
    dtype: DTypeLike = DType.FLOAT32,
    name: str = "",
    source: str = "",
) -> Tensor:
    """Like :func:`compute`, for a tensor that is defined by elements of itself: steps of time along the first axis.

    ``body`` takes the tensor, then one index per dimension; it may load elements whose first index is smaller by a
    constant. Raises :class:`ExpressionError` when it loads others.
    """
    made = Tensor(name or "computed", _checked_shape(shape, name or "computed"), as_dtype(dtype))
    names = _axis_names(body, len(shape) + 1, made.name)[1:]
    axes = tuple(Axis(n, DType.INT64, d) for n, d in zip(names, made.shape, strict=True))
    value = _as_value(body(made, *axes), made.name)
    for load in loads(value):
        if load.source is made:
            _check_earlier(load, axes, made.name)
    _check_reductions(value, axes, made.name)
    if value.dtype is not made.dtype:
        raise DTypeError(f"tensor {made.name!r} is {made.dtype.value}, but its definition is {value.dtype.value}")
    for field, content in (("axes", axes), ("body", value), ("source", source)):
        object.__setattr__(made, field, content)  # the definition needs the tensor to exist
    return made


def _check_earlier(load: Load, axes: tuple[Axis, ...], name: str) -> None:
    behind = simplify(axes[0] - load.indices[0]) if axes else const(0)
    if not (isinstance(behind, Const) and behind.value >= 1):
        raise ExpressionError(
            f"tensor {name!r} is defined by its own element {load}, whose first index is not a constant number of "
            f"steps before {axes[0].name if axes else 'it'}"
        )


def _axis_names(body: Callable[..., Any], rank: int, name: str) -> tuple[str, ...]:
    parameters = list(inspect.signature(body).parameters.values())
    if [p for p in parameters if p.kind is p.VAR_POSITIONAL]:
        return tuple(f"i{d}" for d in range(rank))
    names = tuple(p.name for p in parameters)
    if len(names) != rank:
        raise ExpressionError(
            f"the function of tensor {name!r} takes ({', '.join(names)}), but the tensor has {rank} dimensions; "
            f"give it one parameter per dimension"
        )
    return names


def _check_reductions(value: Expr, axes: tuple[Axis, ...], name: str) -> None:
    inner = value.operand if isinstance(value, Reduce) else value
    if [n for n in walk(inner) if isinstance(n, Reduce)]:
        raise ExpressionError(
            f"tensor {name!r} uses a reduction inside a larger expression; compute the reduction as a tensor of "
            f"its own and load from that"
        )
    reduced = value.axes if isinstance(value, Reduce) else ()
    names = [a.name for a in (*axes, *reduced)]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise ExpressionError(f"tensor {name!r} has two axes named {repeated[0]!r}; give each axis its own name")
    loose = sorted(v.name for v in free_vars(inner) - {*axes, *reduced} if isinstance(v, Axis))
    if loose:
        raise ExpressionError(
            f"tensor {name!r} uses the axis {loose[0]!r}, which is none of its indices; reduce over it, as in "
            f"pc.sum(..., axis={loose[0]}), or make it an index"
        )


def _reduce(op: str, operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    axes = (axis,) if isinstance(axis, Axis) else tuple(axis) if isinstance(axis, Sequence) else (axis,)
    wrong = [a for a in axes if not isinstance(a, Axis)]
    if wrong:
        raise ExpressionError(f"{op} over {wrong[0]!r}: give an axis, such as k = pc.reduce_axis(extent, 'k')")
    return Reduce(op, wrap(operand), axes)


def sum(operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    """The sum of ``operand`` over ``axis``; 0 over an empty axis."""
    return _reduce("sum", operand, axis)


def prod(operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    """The product of ``operand`` over ``axis``; 1 over an empty axis."""
    return _reduce("prod", operand, axis)


def max(operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    """The largest ``operand`` over ``axis`` (NaN if any is NaN); the dtype's minimum over an empty axis."""
    return _reduce("max", operand, axis)


def min(operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    """The smallest ``operand`` over ``axis`` (NaN if any is NaN); the dtype's maximum over an empty axis."""
    return _reduce("min", operand, axis)


def all(operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    """Bitwise (bool: logical) ``and`` of ``operand`` over ``axis``."""
    return _reduce("and", operand, axis)


def any(operand: ExprLike, axis: Axis | Sequence[Axis]) -> Expr:
    """Bitwise (bool: logical) ``or`` of ``operand`` over ``axis``."""
    return _reduce("or", operand, axis)


def reduce_identity(op: str, dtype: DType) -> Const:
    """The value that a reduction ``op`` starts from."""
    values: dict[str, int | float] = {
        "sum": 0,
        "prod": 1,
        "max": dtype.minimum,
        "min": dtype.maximum,
        "and": 1 if dtype is DType.BOOL else -1,
        "or": 0,
    }
    return const(values[op], dtype)


def topological_order(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """All tensors that ``outputs`` depend on, placeholders and the outputs included, producers first."""
    order: dict[Tensor, None] = {}
    stack: list[tuple[Tensor, bool]] = [(t, False) for t in reversed(outputs)]
    while stack:
        tensor, done = stack.pop()
        if tensor in order:
            continue
        if done:
            order[tensor] = None
            continue
        stack.append((tensor, True))
        stack.extend((t, False) for t in reversed(tensor.inputs()))
    return tuple(order)
