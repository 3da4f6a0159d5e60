"""Reductions over any axes, ArgMax and ArgMin, and CumSum. float16 is accumulated in float32."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from polycomp.dtypes import DType
from polycomp.expr import Expr, binary, cast, const, eq, minimum, select, unary, wrap
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
from polycomp.te import Dim, Tensor, reduce_axis
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


_SCAN_BLOCK = 16
"""Elements per block of a prefix sum: those of a vector, most often."""

_OPEN_LEVELS = 3
"""Levels of blocks of blocks where the number of elements is not known."""


def _infer_cumulative_sum(call: Call) -> tuple[TensorType, ...]:
    check_dtypes(call, NUMBERS)
    axis_of(call, call.input(0).rank)
    return (call.input(0),)


def _lower_cumulative_sum(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Prefix sums within blocks of 16, plus those of the blocks' sums, which are made in the same way.

    A tensor expression has no running value: each element of a block is a sum of its own, of those up to it. That is
    16 additions per element, or one of vectors per element where a vector is a block (Blelloch, "Prefix sums and
    their applications", 1990, with a sum over lanes that are masked in place of a tree).
    """
    x = required(inputs, 0)
    axis = axis_of(call, x.rank)
    n = x.shape[axis]

    def in_order(index: Sequence[Expr]) -> Sequence[Expr]:
        """Counted in the order of summation."""
        if not call.attr("reverse", 0):
            return index
        return (*index[:axis], wrap(n) - 1 - index[axis], *index[axis + 1 :])

    sums = _Scan(call, axis, bool(call.attr("exclusive", 0)), lambda index: widen(x[tuple(in_order(index))]))
    total = sums.of(x.shape, 0)
    return (pointwise(call, "", x.shape, lambda *index: cast(x.dtype, total(in_order(index)))),)


Point = Sequence[Expr]
Value = Callable[[Point], Expr]


@dataclasses.dataclass(frozen=True)
class _Scan:
    """Prefix sums of ``value`` along ``axis``; the element itself is left out where they are ``exclusive``."""

    call: Call
    axis: int
    exclusive: bool
    value: Value

    def of(self, shape: Sequence[Dim], level: int) -> Value:
        """The sums for all points of ``shape``; ``level`` counts blocks of blocks."""
        n, axis = shape[self.axis], self.axis
        if (isinstance(n, int) and n <= _SCAN_BLOCK) or level == _OPEN_LEVELS:
            return self._within(shape, level, n)
        local = self._within(shape, level, _SCAN_BLOCK)
        blocks = (*shape[:axis], as_dim((n + _SCAN_BLOCK - 1) // _SCAN_BLOCK), *shape[axis + 1 :])

        def whole_block(index: Point) -> Expr:
            """The sum of a block; of the last one, which may be shorter, nobody needs it."""
            end = minimum(index[axis] * _SCAN_BLOCK + (_SCAN_BLOCK - 1), wrap(n) - 1)
            last = (*index[:axis], end, *index[axis + 1 :])
            return local(last) + self.value(last) if self.exclusive else local(last)

        before = _Scan(self.call, axis, True, whole_block).of(blocks, level + 1)
        total = pointwise(self.call, f"to{level}", shape, lambda *index: local(index) + before(self._block(index)))
        return lambda index: total[tuple(index)]

    def _block(self, index: Point) -> Point:
        return (*index[: self.axis], index[self.axis] // _SCAN_BLOCK, *index[self.axis + 1 :])

    def _within(self, shape: Sequence[Dim], level: int, size: Dim) -> Value:
        """The sums within blocks of ``size``, of which there is only one where that is the whole axis."""
        axis, only = self.axis, size is shape[self.axis]
        within = reduce_axis(size, "within")

        def body(*index: Expr) -> Expr:
            start, reached = (0, index[axis]) if only else (index[axis] // size * size, index[axis] % size)
            wanted = within < reached if self.exclusive else within <= reached
            value = self.value((*index[:axis], wrap(start) + within, *index[axis + 1 :]))
            return te_sum(select(wanted, value, 0), within)

        made = pointwise(self.call, f"within{level}", shape, body)
        return lambda index: made[tuple(index)]


OPERATORS = family(
    *(_reduction(name, rule) for name, rule in _RULES.items()),
    Operator("ReduceLogSumExp", OpKind.REDUCTION, functools.partial(_infer_with, NUMBERS), _lower_log_sum_exp),
    Operator("ArgMax", OpKind.REDUCTION, _infer_arg, functools.partial(_lower_arg, "max")),
    Operator("ArgMin", OpKind.REDUCTION, _infer_arg, functools.partial(_lower_arg, "min")),
    Operator("CumSum", OpKind.REDUCTION, _infer_cumulative_sum, _lower_cumulative_sum),
)
