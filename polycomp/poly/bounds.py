"""Which elements of a tensor a piece of a schedule tree touches: bounding boxes of index expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polycomp.expr import Const, Expr, Interval, Var, bounds, const, free_vars, loads, simplify, terms, wrap
from polycomp.te import Dim

Box = tuple[tuple[Expr, Dim] | None, ...]
"""Origin and extent per dimension; None where the touched range cannot be bounded by outer variables."""


def required_region(
    indices: Sequence[tuple[Expr, ...]], inner: Mapping[Var, Dim], ranges: Mapping[Var, Interval]
) -> Box:
    """The box of elements touched by ``indices`` while the ``inner`` loop variables run over their extents.

    Origins are expressions over the outer variables and sizes; extents are constants or expressions over sizes.
    """
    box: list[tuple[Expr, Dim] | None] = []
    for dimension in zip(*indices, strict=True):
        box.append(_hull([_span(index, inner, ranges) for index in dict.fromkeys(dimension)], ranges))
    return tuple(box)


def _span(index: Expr, inner: Mapping[Var, Dim], ranges: Mapping[Var, Interval]) -> tuple[Expr, Expr] | None:
    """The least and the greatest value of ``index`` (inclusive), or None when it is not a sum of bounded terms."""
    if loads(index):
        return None
    low: Expr = const(0)
    high: Expr = const(0)
    limits = {**ranges, **{v: _limits(e, ranges) for v, e in inner.items()}}
    for coefficient, product in terms(simplify(index, limits)):
        used = free_vars(product) & inner.keys()
        if not used:
            low, high = low + product * coefficient, high + product * coefficient
            continue
        span = _inner_span(product, inner, limits)
        if span is None:
            return None
        least, most = span if coefficient > 0 else (span[1], span[0])
        low, high = low + least * coefficient, high + most * coefficient
    return simplify(low, ranges), simplify(high, ranges)


def _inner_span(
    product: Expr, inner: Mapping[Var, Dim], limits: Mapping[Var, Interval]
) -> tuple[Expr, Expr] | None:
    if isinstance(product, Var):
        return const(0), wrap(inner[product]) - 1
    least, most = bounds(product, limits)
    return None if least is None or most is None else (const(least), const(most))


def _limits(extent: Dim, ranges: Mapping[Var, Interval]) -> Interval:
    high = bounds(wrap(extent), ranges)[1]
    return (0, None if high is None else max(high - 1, 0))


def _hull(spans: Sequence[tuple[Expr, Expr] | None], ranges: Mapping[Var, Interval]) -> tuple[Expr, Dim] | None:
    first = spans[0] if spans else None
    if first is None:
        return None
    low, high = first
    for span in spans[1:]:
        if span is None:
            return None
        below, above = simplify(span[0] - low, ranges), simplify(span[1] - high, ranges)
        if not isinstance(below, Const) or not isinstance(above, Const):
            return None
        low = span[0] if below.value < 0 else low
        high = span[1] if above.value > 0 else high
    extent = simplify(high - low + 1, ranges)
    return low, int(extent.value) if isinstance(extent, Const) else extent
