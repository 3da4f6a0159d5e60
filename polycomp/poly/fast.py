"""Tier one of legality: structural proofs by mixed-radix numbers and intervals, without isl.

Loop nests that come from splitting, reordering and fusing write each iterator as a mixed-radix number whose digits are
loop variables. Two questions then have cheap answers: which elements a nest covers, and which loop variables of two
instances must be equal when they touch the same element. Every function here is sufficient only: False means maybe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.expr import Binary, Const, Expr, Interval, Var, free_vars
from polycomp.poly.leaves import Schedule, Scheduled
from polycomp.poly.linear import Form, Prover, same, single_atom
from polycomp.poly.tree import Loop

Row = tuple[Form, Form]


def _recombined(rows: list[Row]) -> tuple[list[Row], list[tuple[Form, Form]]]:
    """Replace rows ``x // c = s`` and ``x % c = t`` by ``x = c*s + t``, repeatedly.

    The second result lists ``(t, c)``, for which ``0 <= t < c`` must hold when ``t`` is not a remainder itself.
    """
    limits: list[tuple[Form, Form]] = []
    while True:
        found = _division_pair(rows)
        if found is None:
            return rows, limits
        i, j, dividend, divisor = found
        quotient, remainder = rows[i][1], rows[j][1]
        limits.append((remainder, Form({}, divisor)))
        merged = (dividend, quotient.scaled(divisor).plus(remainder))
        rows = [r for k, r in enumerate(rows) if k not in (i, j)] + [merged]


def _division_pair(rows: Sequence[Row]) -> tuple[int, int, Form, int] | None:
    divisions: dict[tuple[Expr, Expr], int] = {}
    for i, (form, _) in enumerate(rows):
        atom = single_atom(form)
        if isinstance(atom, Binary) and atom.op == "floordiv" and isinstance(atom.right, Const):
            divisions[(atom.left, atom.right)] = i
    for j, (form, _) in enumerate(rows):
        atom = single_atom(form)
        if isinstance(atom, Binary) and atom.op == "floormod" and isinstance(atom.right, Const):
            i = divisions.get((atom.left, atom.right), -1)
            if i >= 0:
                return i, j, _as_form(atom.left), int(atom.right.value)
            nested = _nested_quotient(atom.left, int(atom.right.value), divisions)
            if nested >= 0:
                return nested, j, Form({atom.left: 1}), int(atom.right.value)
    return None


def _nested_quotient(dividend: Expr, divisor: int, divisions: dict[tuple[Expr, Expr], int]) -> int:
    """The row ``x // (b*c)`` that is the quotient of ``x // b`` by ``c``."""
    if isinstance(dividend, Binary) and dividend.op == "floordiv" and isinstance(dividend.right, Const):
        total = Const(int(dividend.right.value) * divisor, dividend.right.dtype)
        return divisions.get((dividend.left, total), -1)
    return -1


def _as_form(e: Expr) -> Form:
    """The form of an expression that the simplifier left in normal form."""
    if isinstance(e, Const):
        return Form({}, int(e.value))
    if isinstance(e, Binary) and e.op in ("add", "sub"):
        return _as_form(e.left).plus(_as_form(e.right), 1 if e.op == "add" else -1)
    if isinstance(e, Binary) and e.op == "mul" and isinstance(e.right, Const):
        return _as_form(e.left).scaled(int(e.right.value))
    return Form({e: 1})


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
        rows, limits = _recombined(list(zip(self.writer.point, targets, strict=True)))
        if not all(prover.nonnegative(t) and prover.nonnegative(c.plus(t, -1).add(-1)) for t, c in limits):
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
        new = _equal_dividends(equal) - resolved
        if len(equal) == before and not new:
            return frozenset(equal)
        resolved |= new
        equal |= {e for e in new if isinstance(e, Binary) and e.op in ("floordiv", "floormod")}
        pending += [(_as_form(e), _as_form(e)) for e in new]


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


def _equal_dividends(equal: set[Expr]) -> set[Expr]:
    """Each ``x`` for which ``x // c`` and ``x % c`` are both equal in the two instances."""
    found: set[Expr] = set()
    divisions = {(a.left, a.right): 0 for a in equal if isinstance(a, Binary) and a.op == "floordiv"}
    for atom in equal:
        if isinstance(atom, Binary) and atom.op == "floormod" and isinstance(atom.right, Const):
            nested = _nested_quotient(atom.left, int(atom.right.value), divisions)
            if (atom.left, atom.right) in divisions or nested >= 0:
                found.add(atom.left)
    return found
