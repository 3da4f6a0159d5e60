"""Reductions over any axes, ArgMax and ArgMin, and CumSum. float16 is accumulated in float32."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from polycomp.dtypes import DType
from polycomp.expr import Expr, binary, cast, const, eq, select, unary, wrap
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import (
    BOOLS,
    NUMBERS,
    axis_of,
    check_dtypes,
    count_of,
    pointwise,
    reduce_over,
    shape_error,
    without,
)
from polycomp.ops.registry import family
from polycomp.ops.windows import as_dim, required, widen
from polycomp.te import Axis, Tensor, reduce_axis
from polycomp.te import sum as te_sum


def _unchanged(x: Expr) -> Expr:
    return x


@dataclasses.dataclass(frozen=True)
class _Rule:
    """A reduction: ``finish(op over element(x), count of elements)``.

    ``as_float``: integers are computed in float64 and truncated at the end.
    """

    op: str
    element: Callable[[Expr], Expr] = _unchanged
    finish: Callable[[Expr, Expr], Expr] | None = None
    allowed: frozenset[DType] = NUMBERS
    as_float: bool = False

    def work(self, x: Expr) -> Expr:
        """``x`` in the type that the reduction is computed in."""
        return cast(DType.FLOAT64, x) if self.as_float and x.dtype.is_integer else widen(x)


def _mean(total: Expr, count: Expr) -> Expr:
    return binary("div" if total.dtype.is_float else "truncdiv", total, count)


def _square(x: Expr) -> Expr:
    return x * x


def _absolute(x: Expr) -> Expr:
    return unary("abs", x) if x.dtype.is_signed else x


_ORDERED = NUMBERS | BOOLS

_RULES = {
    "ReduceSum": _Rule("sum"),
    "ReduceMean": _Rule("sum", finish=_mean),
    "ReduceMax": _Rule("max", allowed=_ORDERED),
    "ReduceMin": _Rule("min", allowed=_ORDERED),
    "ReduceProd": _Rule("prod"),
    "ReduceL1": _Rule("sum", _absolute),
    "ReduceL2": _Rule("sum", _square, lambda total, count: unary("sqrt", total), as_float=True),
    "ReduceLogSum": _Rule("sum", finish=lambda total, count: unary("log", total), as_float=True),
    "ReduceSumSquare": _Rule("sum", _square),
}


def _axes(call: Call) -> tuple[int, ...]:
    rank = call.input(0).rank
    axes = tuple(call.attr("axes", ()))
    if len(set(axes)) < len(axes) or not all(0 <= a < rank for a in axes):
        raise shape_error(call, f"the axes {list(axes)} are not different dimensions out of {rank}")
    return axes


def _infer_with(allowed: frozenset[DType], call: Call) -> tuple[TensorType, ...]:
    dtype = check_dtypes(call, allowed)
    axes, keepdims = _axes(call), bool(call.attr("keepdims", True))
    shape = tuple(1 if d in axes else n for d, n in enumerate(call.input(0).shape) if keepdims or d not in axes)
    return (TensorType(dtype, shape),)


def _lower_with(rule: _Rule, call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    axes, keepdims = _axes(call), bool(call.attr("keepdims", True))
    op = {"max": "or", "min": "and"}[rule.op] if x.dtype is DType.BOOL else rule.op
    total = reduce_over(call, rule.op, op, x.shape, axes, lambda i: rule.element(rule.work(x[i])), keepdims)
    if rule.finish is None and total.dtype is x.dtype:
        return (dataclasses.replace(total, name=call.node),)
    count = count_of([x.shape[a] for a in axes], total.dtype)

    def finish(*index: Expr) -> Expr:
        value = total[index]
        return cast(x.dtype, value if rule.finish is None else rule.finish(value, count))

    return (pointwise(call, "", total.shape, finish),)


def _reduction(name: str, rule: _Rule) -> Operator:
    infer = functools.partial(_infer_with, rule.allowed)
    return Operator(name, OpKind.REDUCTION, infer, functools.partial(_lower_with, rule))


def _lower_log_sum_exp(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """``m + log(sum(exp(x - m)))`` with the maximum m (0 when that is infinite), which cannot overflow."""
    x = required(inputs, 0)
    axes, keepdims = _axes(call), bool(call.attr("keepdims", True))
    work = functools.partial(_Rule.work, _Rule("max", as_float=True))
    largest = reduce_over(call, "max", "max", x.shape, axes, lambda i: work(x[i]), keepdims)
    shift = pointwise(
        call, "shift", largest.shape, lambda *i: select(unary("abs", largest[i]) < float("inf"), largest[i], 0)
    )

    def element(index: tuple[Expr, ...]) -> Expr:
        kept = tuple(const(0) if d in axes else i for d, i in enumerate(index)) if keepdims else without(index, axes)
        return unary("exp", work(x[index]) - shift[kept])

    total = reduce_over(call, "sum", "sum", x.shape, axes, element, keepdims)
    return (pointwise(call, "", total.shape, lambda *i: cast(x.dtype, unary("log", total[i]) + shift[i])),)


def _infer_arg(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, NUMBERS)
    x = call.input(0)
    axis, keepdims = axis_of(call, x.rank), bool(call.attr("keepdims", True))
    if x.shape[axis] == 0:
        raise shape_error(call, f"dimension {axis} is empty, so it has no extreme")
    shape = tuple(1 if d == axis else n for d, n in enumerate(x.shape) if keepdims or d != axis)
    return (TensorType(DType.INT64, shape),)


def _lower_arg(extreme: str, call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """First the extreme, then the first (or last) position that holds it. NaN is the extreme of all, as in numpy."""
    x = required(inputs, 0)
    axis, keepdims = axis_of(call, x.rank), bool(call.attr("keepdims", True))
    best = reduce_over(call, extreme, extreme, x.shape, [axis], lambda i: widen(x[i]))
    last = bool(call.attr("select_last_index", 0))

    def position(index: tuple[Expr, ...]) -> Expr:
        value = widen(x[index])
        found = eq(value, best[without(index, [axis])])
        if x.dtype.is_float:
            found = found | unary("isnan", value)
        return select(found, index[axis], -1 if last else wrap(x.shape[axis]))

    return (reduce_over(call, "", "max" if last else "min", x.shape, [axis], position, keepdims),)


_SCAN_BLOCK = 64
"""Elements per block of a prefix sum."""


def _infer_cumulative_sum(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, NUMBERS)
    axis_of(call, call.input(0).rank)
    return (call.input(0),)


def _lower_cumulative_sum(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Prefix sums in two levels: within blocks of 64, plus the sum of all blocks before.

    A tensor expression has no running value, so that n elements cost 64 * n + (n / 64)**2 additions.
    """
    x = required(inputs, 0)
    axis = axis_of(call, x.rank)
    n = x.shape[axis]
    if isinstance(n, int) and n <= 2 * _SCAN_BLOCK:
        return (_prefix_sum(call, x, axis, max(n, 1), None),)
    return (_prefix_sum(call, x, axis, _SCAN_BLOCK, _block_offsets(call, x, axis)),)


def _scanned(call: Call, x: Tensor, axis: int, index: Sequence[Expr], position: Expr) -> Expr:
    """The element at ``position`` in the order of summation."""
    place = wrap(x.shape[axis]) - 1 - position if call.attr("reverse", 0) else position
    return widen(x[(*index[:axis], place, *index[axis + 1 :])])


def _block_offsets(call: Call, x: Tensor, axis: int) -> Tensor:
    """The sum of all elements before each block."""
    n = x.shape[axis]
    blocks = as_dim((n + _SCAN_BLOCK - 1) // _SCAN_BLOCK)
    shape = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
    within, before = reduce_axis(_SCAN_BLOCK, "within"), reduce_axis(blocks, "before")

    def block_sum(*index: Expr) -> Expr:
        position = index[axis] * _SCAN_BLOCK + within
        value = _scanned(call, x, axis, index, position)
        return te_sum(select(position < wrap(n), value, 0), within)

    sums = pointwise(call, "blocks", shape, block_sum)

    def offset(*index: Expr) -> Expr:
        value = sums[(*index[:axis], before, *index[axis + 1 :])]
        return te_sum(select(before < index[axis], value, 0), before)

    return pointwise(call, "offsets", shape, offset)


def _prefix_sum(call: Call, x: Tensor, axis: int, block: int, offsets: Tensor | None) -> Tensor:
    n = x.shape[axis]
    within: Axis = reduce_axis(block, "within")
    order = "lt" if call.attr("exclusive", 0) else "le"

    def in_block(*index: Expr) -> Expr:
        at = wrap(n) - 1 - index[axis] if call.attr("reverse", 0) else index[axis]
        start, reached = at // block * block, at % block
        if offsets is None:
            start, reached = const(0), at
        value = _scanned(call, x, axis, index, start + within)
        return te_sum(select(_before(order, within, reached), value, 0), within)

    local = pointwise(call, "within", x.shape, in_block)
    if offsets is None and local.dtype is x.dtype:
        return dataclasses.replace(local, name=call.node)

    def total(*index: Expr) -> Expr:
        if offsets is None:
            return cast(x.dtype, local[index])
        at = wrap(n) - 1 - index[axis] if call.attr("reverse", 0) else index[axis]
        return cast(x.dtype, local[index] + offsets[(*index[:axis], at // block, *index[axis + 1 :])])

    return pointwise(call, "", x.shape, total)


def _before(order: str, within: Expr, reached: Expr) -> Expr:
    return within < reached if order == "lt" else within <= reached


OPERATORS = family(
    *(_reduction(name, rule) for name, rule in _RULES.items()),
    Operator("ReduceLogSumExp", OpKind.REDUCTION, functools.partial(_infer_with, NUMBERS), _lower_log_sum_exp),
    Operator("ArgMax", OpKind.REDUCTION, _infer_arg, functools.partial(_lower_arg, "max")),
    Operator("ArgMin", OpKind.REDUCTION, _infer_arg, functools.partial(_lower_arg, "min")),
    Operator("CumSum", OpKind.REDUCTION, _infer_cumulative_sum, _lower_cumulative_sum),
)
