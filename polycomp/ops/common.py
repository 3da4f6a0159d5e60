"""What the families share: shape and dtype rules with their messages, broadcasting loads, stages of a definition."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from polycomp import te
from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Const, Expr, ExprLike, Reduce, cast, const, wrap
from polycomp.graph.ir import Call, TensorType
from polycomp.ops.windows import as_dim
from polycomp.te import Axis, Dim, Tensor

FLOATS = frozenset(d for d in DType if d.is_float)
INTEGERS = frozenset(d for d in DType if d.is_integer)
NUMBERS = FLOATS | INTEGERS
BOOLS = frozenset([DType.BOOL])
ANY = frozenset(DType)


def shape_error(call: Call, problem: str) -> ShapeError:
    """An error that names the operator, the node and the shapes of all inputs."""
    shapes = ", ".join("absent" if t is None else str(t) for t in call.inputs)
    return ShapeError(f"{call.op} {call.node!r}: {problem} (inputs: {shapes or 'none'})")


def dtype_error(call: Call, problem: str) -> DTypeError:
    """The same for element types."""
    types = ", ".join("absent" if t is None else str(t) for t in call.inputs)
    return DTypeError(f"{call.op} {call.node!r}: {problem} (inputs: {types or 'none'})")


def check_dtypes(call: Call, allowed: frozenset[DType], positions: Sequence[int] | None = None) -> DType:
    """The one element type of the given inputs (all when ``positions`` is None); raises DTypeError otherwise."""
    where = range(len(call.inputs)) if positions is None else positions
    found = list(dict.fromkeys(call.input(p).dtype for p in where if call.has(p)))
    if len(found) != 1:
        raise dtype_error(call, f"the operands must have one element type, not {' and '.join(d.value for d in found)}")
    if found[0] not in allowed:
        names = ", ".join(d.value for d in DType if d in allowed)
        raise dtype_error(call, f"element type {found[0].value} is not among {names}")
    return found[0]


def axis_of(call: Call, rank: int, default: int = 0) -> int:
    """The attribute ``axis`` as a dimension of a tensor of ``rank``, counted from the front."""
    axis = int(call.attr("axis", default))
    if not -rank <= axis < rank:
        raise shape_error(call, f"axis {axis} does not exist in {rank} dimensions")
    return axis % rank


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether the sizes are equal for certain, whatever the symbols in them are."""
    return as_dim(a - b) == 0


def known_different(a: Dim, b: Dim) -> bool:
    """Whether the sizes differ for certain."""
    return isinstance(difference := as_dim(a - b), int) and difference != 0


def product(dims: Sequence[Dim]) -> Dim:
    """The product of sizes, in normal form."""
    return as_dim(math.prod(dims))


def broadcast(call: Call, shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The shape that numpy's rules broadcast ``shapes`` to; a size broadcasts only when it is known to be 1."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(_broadcast_dims(call, d, dims) for d, dims in enumerate(zip(*padded, strict=True)))


def _broadcast_dims(call: Call, position: int, dims: Sequence[Dim]) -> Dim:
    result: Dim = 1
    for dim in map(as_dim, dims):
        if result == 1:
            result = dim
        elif dim != 1 and not same_dim(result, dim):
            raise shape_error(call, f"the shapes cannot be broadcast: dimension {position} is {result} and {dim}")
    return result


def broadcast_load(tensor: Tensor, shape: Sequence[Dim], index: Sequence[Expr]) -> Expr:
    """The element of ``tensor`` that is at ``index`` when it is broadcast to ``shape``; a literal tensor's literal."""
    if isinstance(tensor.body, Const):
        return tensor.body
    skip = len(shape) - tensor.rank
    pairs = zip(tensor.shape, shape[skip:], index[skip:], strict=True)
    return tensor[tuple(const(0) if n == 1 and out != 1 else i for n, out, i in pairs)]


def pointwise(call: Call, stage: str, shape: Sequence[Dim], body: Callable[..., ExprLike]) -> Tensor:
    """A tensor of the call: its output when ``stage`` is "", else one on the way, named ``NODE.STAGE``."""
    return te.compute(shape, body, f"{call.node}.{stage}" if stage else call.node, call.node)


def reduce_over(
    call: Call,
    stage: str,
    op: str,
    shape: Sequence[Dim],
    axes: Sequence[int],
    element: Callable[[tuple[Expr, ...]], Expr],
    keepdims: bool = False,
) -> Tensor:
    """``element`` at all points of ``shape``, reduced by ``op`` over its dimensions ``axes``."""
    summed = {d: Axis(f"k{d}", extent=shape[d]) for d in axes}
    kept = {
        d: Axis(f"i{d}", extent=1 if d in summed else n) for d, n in enumerate(shape) if keepdims or d not in summed
    }
    value = element(tuple(summed[d] if d in summed else kept[d] for d in range(len(shape))))
    body = Reduce(op, value, tuple(summed.values())) if summed else value
    name = f"{call.node}.{stage}" if stage else call.node
    return Tensor(name, tuple(a.extent for a in kept.values()), value.dtype, tuple(kept.values()), body, call.node)


def without(index: Sequence[Expr], axes: Sequence[int]) -> tuple[Expr, ...]:
    """``index`` into a tensor that was reduced over ``axes``."""
    return tuple(i for d, i in enumerate(index) if d not in axes)


def count_of(dims: Sequence[Dim], dtype: DType) -> Expr:
    """The number of elements of ``dims`` as a ``dtype``."""
    return cast(dtype, wrap(product(dims)))


def conjunction(conditions: Sequence[Expr]) -> Expr | None:
    """All of the conditions; None when there are none."""
    return functools.reduce(lambda a, b: a & b, conditions) if conditions else None


def same_type(call: Call) -> tuple[TensorType, ...]:
    """The shape rule of operators whose output is like their first input."""
    return (call.input(0),)
