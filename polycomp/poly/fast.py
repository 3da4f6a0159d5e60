"""Tier one of legality: structural proofs by mixed-radix numbers and intervals, without isl.

Loop nests that come from splitting, reordering and fusing write each iterator as a mixed-radix number whose digits are
loop variables. Two questions then have cheap answers: which elements a nest covers, and which loop variables of two
instances must be equal when they touch the same element. Every function here is sufficient only: False means maybe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeGuard

from polycomp.expr import Binary, Const, Expr, Interval, Var, free_vars
from polycomp.poly.leaves import Schedule, Scheduled
from polycomp.poly.linear import Form, Forms, Prover, same
from polycomp.poly.tree import Loop

Row = tuple[Form, Form]


@dataclasses.dataclass(frozen=True)
class _Division:
    """Row ``quotient`` is ``dividend // divisor`` and row ``remainder`` is ``dividend % divisor``, the latter as
    ``step * (x % m) + fine`` with ``0 <= fine < step``, where ``dividend`` is ``step * x + fine``."""

    quotient: int
    remainder: int
    dividend: Form
    divisor: int
    fine: Form
    step: int


def _recombined(rows: list[Row], forms: Forms) -> tuple[list[Row], list[tuple[Form, int]]]:
    """Replace rows ``x // c = s`` and ``x % c = t`` by ``x = c*s + t``, repeatedly.

    The second result lists ``(t, c)``, for which ``0 <= t < c`` must hold for that to be the same.
    """
    limits: list[tuple[Form, int]] = []
    while True:
        found = _division(rows, forms)
        if found is None:
            return rows, limits
        quotient, remainder = rows[found.quotient][1], rows[found.remainder][1]
        limits += [(remainder, found.divisor), (found.fine, found.step)]
        merged = (found.dividend, quotient.scaled(found.divisor).plus(remainder))
        rows = [r for k, r in enumerate(rows) if k not in (found.quotient, found.remainder)] + [merged]


def _division(rows: Sequence[Row], forms: Forms) -> _Division | None:
    for j, (form, _) in enumerate(rows):
        for atom, step in form.terms.items():
            if not _is_remainder(atom):
                continue
            fine, divisor = form.plus(Form({atom: 1}), -step), _divisor(atom)
            for quotient in forms.quotients_of(atom.left, divisor):
                i = next((i for i, (other, _) in enumerate(rows) if i != j and same(other, quotient)), -1)
                if i >= 0:
                    dividend = forms.of(atom.left).scaled(step).plus(fine)
                    return _Division(i, j, dividend, step * divisor, fine, step)
    return None


def _is_remainder(atom: Expr) -> TypeGuard[Binary]:
    return isinstance(atom, Binary) and atom.op == "floormod" and isinstance(atom.right, Const)


def _divisor(atom: Binary) -> int:
    assert isinstance(atom.right, Const)
    return int(atom.right.value)


@dataclasses.dataclass
class _Digits:
    """One row of a covering problem: ``base + inner`` must take the value ``base + offset``."""

    inner: Form
    offset: Form


class Covering:
    """Whether the loops of ``writer`` that are not ``fixed`` reach certain points, whatever the fixed ones are."""

    def __init__(self, schedule: Schedule, writer: Scheduled, fixed: frozenset[Var]) -> None:
        self.schedule, self.writer = schedule, writer
        self.inner: dict[Var, Loop] = {loop.var: loop for loop in writer.loops if loop.var not in fixed}
        self.boxed = {v for v, loop in self.inner.items() if self._is_box(loop)}

    def _is_box(self, loop: Loop) -> bool:
        """Whether the extent is the same for all inner iterations."""
        return isinstance(loop.extent, int) or not (free_vars(loop.extent) & self.inner.keys())

    def reaches(self, targets: Sequence[Form], prover: Prover) -> bool:
        """Whether some execution of the writer has the point ``targets`` (one form per iterator)."""
        if not self.writer.facts_complete:
            return False
        rows, limits = _recombined(list(zip(self.writer.point, targets, strict=True)), prover.forms)
        if not all(prover.nonnegative(t) and prover.nonnegative(t.scaled(-1).add(c - 1)) for t, c in limits):
            return False
        digits = [self._split(form, target) for form, target in rows]
        used = [v for row in digits if row is not None for v in row.inner.terms]
        if None in digits or len(used) != len(set(used)):
            return False
        known = [row for row in digits if row is not None]
        redundant = [loop for v, loop in self.inner.items() if v not in used]
        return (
            all(self._in_span(row, prover) for row in known)
            and all(prover.nonnegative(self.schedule.extent_of(loop).add(-1)) for loop in redundant)
            and all(self._fact_holds(fact, known, prover) for fact in self.writer.facts)
        )

    def _split(self, form: Form, target: Form) -> _Digits | None:
        inner = form.only(v for v in form.terms if v in self.inner)
        base = form.plus(inner, -1)
        if base.variables & self.inner.keys():
            return None
        return _Digits(inner, target.plus(base, -1))

    def _in_span(self, row: _Digits, prover: Prover) -> bool:
        """Whether ``offset`` is a value of ``inner``: its strides leave no gap, and it lies within their span.

        A digit whose loop may be empty is fine only where digits do not overlap: then the span is empty as well.
        """
        span = Form({})
        for atom, stride in sorted(row.inner.terms.items(), key=lambda t: t[1]):
            gap = span.add(1 - stride)
            if stride < 0 or not prover.nonnegative(gap):
                return False
            last = self._last_value(atom)
            if last is None or not (same(gap, Form({})) or prover.nonnegative(last)):
                return False
            span = span.plus(last, stride)
        return prover.nonnegative(row.offset) and prover.nonnegative(span.plus(row.offset, -1))

    def _last_value(self, atom: Expr) -> Form | None:
        loop = self.inner[atom]  # type: ignore[index]
        if loop.var in self.boxed:
            return self.schedule.extent_of(loop).add(-1)
        high = self.schedule.forms.ranges[loop.var][1]
        return None if high is None else Form({}, high)

    def _fact_holds(self, fact: Form, rows: Sequence[_Digits], prover: Prover) -> bool:
        """Whether a guard lets the wanted execution pass. Variables in no row can be chosen: 0."""
        low = prover.lower(fact)
        if (low is not None and low >= 0) or self._is_extent(fact):
            return True
        value = fact
        for row in rows:
            factor = _multiple(fact, row.inner)
            if factor is None:
                return False
            value = value.plus(row.inner, -factor).plus(row.offset, factor)
        for var in self.inner:
            value = value.plus(Form({var: 1}), -value.terms.get(var, 0))
        return not (value.variables & self.inner.keys()) and prover.nonnegative(value)

    def _is_extent(self, fact: Form) -> bool:
        """Whether the fact only says that a variable stays below its loop's extent, which the span respects."""
        return any(
            same(fact, self.schedule.extent_of(self.inner[v]).plus(Form({v: 1}), -1).add(-1)) for v in self.boxed
        )


def _multiple(fact: Form, inner: Form) -> int | None:
    """m with ``fact = m * inner + ...`` in all variables of ``inner``; None when there is none."""
    factors = set()
    for atom, stride in inner.terms.items():
        wanted = fact.terms.get(atom, 0)
        if wanted % stride:
            return None
        factors.add(wanted // stride)
    return factors.pop() if len(factors) == 1 else None if factors else 0


def equal_variables(rows: Sequence[Row], shared: frozenset[Var], prover: Prover) -> frozenset[Expr]:
    """The variables that must be equal in two instances for which ``first == second`` in each row.

    The two forms of a row are in terms of variables of the same names, which are different except the ``shared``.
    """
    equal: set[Expr] = set(shared)
    pending = list(rows)
    resolved: set[Expr] = set()
    while True:
        before = len(equal)
        for first, second in pending:
            _force(first, second, equal, prover)
        new = _equal_dividends(equal, prover.forms) - resolved
        if len(equal) == before and not new:
            return frozenset(equal)
        resolved |= new
        equal |= {e for e in new if isinstance(e, Binary) and e.op in ("floordiv", "floormod")}
        pending += [(prover.forms.of(e), prover.forms.of(e)) for e in new]


def _force(first: Form, second: Form, equal: set[Expr], prover: Prover) -> None:
    """Equate digits from the most significant one down, as long as the rest cannot make up for a difference."""
    paired = {a: c for a, c in first.terms.items() if second.terms.get(a) == c and not _is_equal(a, equal)}
    rest = _unpaired_interval(first, second, paired, equal, prover)
    for atom in sorted(paired, key=lambda a: -abs(paired[a])):
        others = [_spread(prover.range_of(a), c) for a, c in paired.items() if a is not atom and a not in equal]
        total = rest
        for spread in others:
            total = _sum(total, spread)
        low, high = total
        if low is None or high is None or abs(paired[atom]) <= max(abs(low), abs(high)):
            return
        equal.add(atom)


def _is_equal(atom: Expr, equal: set[Expr]) -> bool:
    return atom in equal or (not isinstance(atom, Var) and free_vars(atom) <= equal)


def _unpaired_interval(
    first: Form, second: Form, paired: dict[Expr, int], equal: set[Expr], prover: Prover
) -> Interval:
    """The range of ``first - second`` without the paired terms."""
    total: Interval = (first.constant - second.constant,) * 2
    for atom in (first.terms.keys() | second.terms.keys()) - paired.keys():
        a, b = first.terms.get(atom, 0), second.terms.get(atom, 0)
        if _is_equal(atom, equal):
            total = _sum(total, _scaled(prover.range_of(atom), a - b))
        else:
            total = _sum(total, _sum(_scaled(prover.range_of(atom), a), _scaled(prover.range_of(atom), -b)))
    return total


def _scaled(interval: Interval, factor: int) -> Interval:
    if factor == 0:
        return (0, 0)
    low, high = (None if x is None else x * factor for x in interval)
    return (low, high) if factor >= 0 else (high, low)


def _sum(a: Interval, b: Interval) -> Interval:
    return tuple(None if x is None or y is None else x + y for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _spread(interval: Interval, coefficient: int) -> Interval:
    """The range of ``coefficient * (x - y)`` for x and y in ``interval``."""
    low, high = interval
    if low is None or high is None:
        return (None, None)
    width = abs(coefficient) * max(0, high - low)
    return (-width, width)


def _equal_dividends(equal: set[Expr], forms: Forms) -> set[Expr]:
    """Each ``x`` for which ``x // c`` and ``x % c`` are both equal in the two instances."""
    remainders = [atom for atom in equal if _is_remainder(atom)]
    return {atom.left for atom in remainders if _has_equal_quotient(atom, equal, forms)}


def _has_equal_quotient(atom: Binary, equal: set[Expr], forms: Forms) -> bool:
    return any(
        all(_is_equal(part, equal) for part in quotient.terms)
        for quotient in forms.quotients_of(atom.left, _divisor(atom))
    )
