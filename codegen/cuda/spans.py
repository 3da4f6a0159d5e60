"""Bounds of integer expressions: whether 32 bits are enough for an index, and whether data may leave its type."""

from __future__ import annotations

import dataclasses

from polycomp.codegen.cuda.frame import Frame
from polycomp.dtypes import DType
from polycomp.expr import Binary, Cast, CheckedIndex, Const, Expr, Interval, Select, Unary, Var, bounds

_LEFT, _RIGHT = Var("left"), Var("right")
_KNOWN = frozenset(["add", "sub", "mul", "min", "max", "floordiv", "floormod"])


@dataclasses.dataclass(frozen=True)
class Span:
    """Inclusive bounds, None where there is none. ``trusted`` is what is made of loops' variables and sizes alone:
    such arithmetic describes memory that exists, so it never overflows."""

    low: int | None
    high: int | None
    trusted: bool

    def fits(self, bits: int) -> bool:
        """Whether signed integers of ``bits`` bits surely have all values."""
        limit = 1 << (bits - 1)
        return self.low is not None and self.high is not None and -limit <= self.low and self.high < limit

    def lies_in(self, dtype: DType) -> bool:
        """Whether an integer type surely has all values."""
        least, most = _limits(dtype)
        return self.low is not None and self.high is not None and least <= self.low and self.high <= most

    @property
    def interval(self) -> Interval:
        return self.low, self.high

    @property
    def is_natural(self) -> bool:
        """Whether it surely is 0 or more."""
        return self.low is not None and self.low >= 0


def span(frame: Frame, e: Expr) -> Span:
    """The bounds of an expression of an integer type, or of bool."""
    match e:
        case Const():
            return Span(int(e.value), int(e.value), True)
        case Var():
            known = frame.ranges.get(e, (None, None))
            return Span(*known, True) if e not in frame.data else _inside(e.dtype, Span(*known, False))
        case Select():
            return _hull(span(frame, e.on_true), span(frame, e.on_false))
        case CheckedIndex():
            high = span(frame, e.size).high
            return Span(0, None if high is None else max(high - 1, 0), True)
        case Cast() if not e.operand.dtype.is_float:
            return _inside(e.dtype, span(frame, e.operand))
        case Unary(op="neg"):
            return _inside(e.dtype, _binary("sub", Span(0, 0, True), span(frame, e.operand)))
        case Binary() if e.op in _KNOWN and e.dtype is not DType.BOOL:
            return _inside(e.dtype, _binary(e.op, span(frame, e.left), span(frame, e.right)))
    return _whole(e.dtype)


def fits_exactly(frame: Frame, e: Binary) -> bool:
    """Whether the result of an operation on integers surely needs no wrapping around."""
    if e.dtype.is_float or e.dtype is DType.BOOL or e.op not in _KNOWN:
        return False
    result = _binary(e.op, span(frame, e.left), span(frame, e.right))
    return (result.trusted and e.dtype is DType.INT64) or result.lies_in(e.dtype)


def _binary(op: str, a: Span, b: Span) -> Span:
    interval = bounds(Binary(op, _LEFT, _RIGHT), {_LEFT: a.interval, _RIGHT: b.interval})
    return Span(*interval, a.trusted and b.trusted)


def _inside(dtype: DType, found: Span) -> Span:
    """``found`` as values of ``dtype``: what may lie outside wraps around to anything."""
    if found.trusted and dtype is DType.INT64:
        return found
    return found if found.lies_in(dtype) else _whole(dtype)


def _whole(dtype: DType) -> Span:
    if dtype.is_float or dtype.bits == 64:
        return Span(0 if dtype is DType.UINT64 else None, None, False)
    return Span(*_limits(dtype), False)


def _limits(dtype: DType) -> tuple[int, int]:
    return int(dtype.minimum), int(dtype.maximum)


def _hull(a: Span, b: Span) -> Span:
    low = None if a.low is None or b.low is None else min(a.low, b.low)
    high = None if a.high is None or b.high is None else max(a.high, b.high)
    return Span(low, high, a.trusted and b.trusted)
