"""Integer linear forms over loop variables and sizes, and fast sufficient proofs about them.

Everything here is plain Python on small dictionaries: it settles the questions that well-formed schedules ask all the
time, so that isl is needed only where the answer is "maybe". A proof that fails says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from polycomp.dtypes import DType
from polycomp.expr import (
    Binary,
    Compare,
    Const,
    Expr,
    Interval,
    Select,
    Unary,
    Var,
    binary,
    bounds,
    const,
    free_vars,
    quotients,
    simplify,
    substitute,
    to_text,
)

SEARCH_LIMIT = 80
"""How many combinations of facts one proof may try."""


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """``constant + sum(coefficient * atom)``. An atom is a variable, a product, or a division, remainder, minimum,
    maximum or select that cannot be taken apart. No coefficient is zero."""

    terms: Mapping[Expr, int]
    constant: int = 0

    def plus(self, other: Form, factor: int = 1) -> Form:
        """``self + factor * other``."""
        terms = dict(self.terms)
        for atom, coefficient in other.terms.items():
            total = terms.get(atom, 0) + factor * coefficient
            if total:
                terms[atom] = total
            else:
                terms.pop(atom, None)
        return Form(terms, self.constant + factor * other.constant)

    def add(self, number: int) -> Form:
        return Form(self.terms, self.constant + number)

    def scaled(self, factor: int) -> Form:
        if factor == 0:
            return Form({})
        return Form({a: c * factor for a, c in self.terms.items()}, self.constant * factor)

    def only(self, atoms: Iterable[Expr]) -> Form:
        """The terms of ``atoms``, without the constant."""
        wanted = set(atoms)
        return Form({a: c for a, c in self.terms.items() if a in wanted})

    @property
    def is_constant(self) -> bool:
        return not self.terms

    @property
    def variables(self) -> frozenset[Var]:
        return frozenset(v for atom in self.terms for v in ((atom,) if isinstance(atom, Var) else free_vars(atom)))

    def expr(self) -> Expr:
        """The form as an expression."""
        result: Expr = const(0)
        for atom, coefficient in self.terms.items():
            term = binary("mul", atom, const(abs(coefficient)))
            result = binary("add" if coefficient > 0 else "sub", result, term)
        return binary("add" if self.constant >= 0 else "sub", result, const(abs(self.constant)))

    def __str__(self) -> str:
        return to_text(self.expr())


def same(a: Form, b: Form) -> bool:
    return a.constant == b.constant and a.terms == b.terms


class Forms:
    """Converts int64 expressions to forms, relying on the inclusive bounds ``ranges`` of variables."""

    def __init__(self, ranges: Mapping[Var, Interval]) -> None:
        self.ranges = dict(ranges)
        self._known: dict[Expr, Form] = {}
        self._quotients: dict[tuple[Expr, int], tuple[Form, ...]] = {}

    def of(self, e: Expr | int) -> Form:
        if isinstance(e, int):
            return Form({}, e)
        known = self._known.get(e)
        if known is None:
            known = self._convert(e)
            self._known[e] = known
        return known

    def ranges_of(self, e: Expr) -> Interval:
        """Inclusive bounds of ``e``."""
        return bounds(e, self.ranges)

    def quotients_of(self, dividend: Expr, divisor: int) -> tuple[Form, ...]:
        """``dividend // divisor``, in all the forms that it may have in an access."""
        key = (dividend, divisor)
        if key not in self._quotients:
            found = (self.of(q) for q in quotients(dividend, divisor, self.ranges))
            self._quotients[key] = tuple(found)
        return self._quotients[key]

    def _convert(self, e: Expr) -> Form:
        if isinstance(e, Const):
            return Form({}, int(e.value))
        if isinstance(e, Var):
            return Form({e: 1})
        if isinstance(e, Binary) and e.op in ("add", "sub"):
            return self.of(e.left).plus(self.of(e.right), 1 if e.op == "add" else -1)
        if isinstance(e, Binary) and e.op == "mul":
            return product(self.of(e.left), self.of(e.right))
        if isinstance(e, Unary) and e.op == "neg":
            return self.of(e.operand).scaled(-1)
        simple = simplify(e, self.ranges)
        if simple == e or type(simple) is type(e):
            return self._atom(simple) if isinstance(simple, Binary) else Form({simple: 1})
        return self.of(simple)

    def _atom(self, e: Binary) -> Form:
        return Form({e: 1}) if e.op not in ("add", "sub", "mul") else self.of(e)

    def substituted(self, form: Form, values: Mapping[Var, Form]) -> Form:
        """``form`` with variables replaced by forms."""
        result = Form({}, form.constant)
        for atom, coefficient in form.terms.items():
            if isinstance(atom, Var):
                replacement = values.get(atom)
                result = result.plus(Form({atom: 1}) if replacement is None else replacement, coefficient)
            else:
                exprs = {v: values[v].expr() for v in free_vars(atom) if v in values}
                result = result.plus(self.of(substitute(atom, exprs)), coefficient)
        return result

    def renamed(self, form: Form, names: Mapping[Var, Var]) -> Form:
        """``form`` with variables renamed; the bounds of the new names must be known."""
        if all(isinstance(a, Var) for a in form.terms):
            return Form({names.get(a, a): c for a, c in form.terms.items()}, form.constant)  # type: ignore[call-overload]
        return self.substituted(form, {old: Form({new: 1}) for old, new in names.items()})


def product(a: Form, b: Form) -> Form:
    """The product, expanded; products of atoms become atoms."""
    if a.is_constant:
        return b.scaled(a.constant)
    if b.is_constant:
        return a.scaled(b.constant)
    result = a.scaled(b.constant).plus(Form(b.terms).scaled(a.constant))
    for x, p in a.terms.items():
        for y, q in b.terms.items():
            factors = sorted((*product_factors(x), *product_factors(y)), key=to_text)
            atom = factors[0]
            for factor in factors[1:]:
                atom = Binary("mul", atom, factor)
            result = result.plus(Form({atom: p * q}))
    return result


def product_factors(e: Expr) -> tuple[Expr, ...]:
    """The factors of a product atom; ``(e,)`` of any other atom."""
    if isinstance(e, Binary) and e.op == "mul":
        return (*product_factors(e.left), *product_factors(e.right))
    return (e,)


def linear_facts(condition: Expr, holds: bool, forms: Forms) -> tuple[tuple[Form, ...], bool]:
    """Forms that are >= 0 where ``condition`` has the truth value ``holds``; and whether they say all of it."""
    if isinstance(condition, Const):
        false = bool(condition.value) != holds
        return ((Form({}, -1),) if false else ()), True
    if isinstance(condition, Unary) and condition.op == "not":
        return linear_facts(condition.operand, not holds, forms)
    if isinstance(condition, Binary) and condition.op == ("and" if holds else "or") and condition.dtype is DType.BOOL:
        left, left_exact = linear_facts(condition.left, holds, forms)
        right, right_exact = linear_facts(condition.right, holds, forms)
        return (*left, *right), left_exact and right_exact
    if isinstance(condition, Compare) and condition.left.dtype is DType.INT64:
        return _comparison_facts(condition, holds, forms)
    return (), False


NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
"""The comparison that holds where another one does not."""


def _comparison_facts(condition: Compare, holds: bool, forms: Forms) -> tuple[tuple[Form, ...], bool]:
    op = condition.op if holds else NEGATED[condition.op]
    difference = forms.of(condition.left).plus(forms.of(condition.right), -1)
    match op:
        case "lt":
            return (difference.scaled(-1).add(-1),), True
        case "le":
            return (difference.scaled(-1),), True
        case "gt":
            return (difference.add(-1),), True
        case "ge":
            return (difference,), True
        case "eq":
            return (difference, difference.scaled(-1)), True
    return (), False


def atom_facts(form: Form, forms: Forms) -> Iterator[Form]:
    """What the divisions, minima and maxima inside ``form`` mean, as forms that are >= 0."""
    for atom in form.terms:
        if not isinstance(atom, Binary) or atom.op == "mul":
            continue
        left, right, value = forms.of(atom.left), forms.of(atom.right), Form({atom: 1})
        if atom.op == "floordiv" and right.is_constant and right.constant > 0:
            rest = left.plus(value, -right.constant)
            yield rest
            yield rest.scaled(-1).add(right.constant - 1)
        elif atom.op == "floormod" and (forms.ranges_of(atom.right)[0] or 0) > 0:
            yield right.plus(value, -1).add(-1)
        elif atom.op == "min":
            yield left.plus(value, -1)
            yield right.plus(value, -1)
        elif atom.op == "max":
            yield value.plus(left, -1)
            yield value.plus(right, -1)


class Prover:
    """Proves forms to be >= 0 from bounds of variables and ``facts`` (forms that are >= 0)."""

    def __init__(self, forms: Forms, facts: Sequence[Form]) -> None:
        self.forms = forms
        self.facts = tuple(f for f in facts if f.terms)
        self._bounds: dict[Expr, Interval] = {}

    def with_facts(self, facts: Sequence[Form]) -> Prover:
        return Prover(self.forms, (*self.facts, *facts)) if facts else self

    def range_of(self, atom: Expr) -> Interval:
        if isinstance(atom, Var):
            return self.forms.ranges.get(atom, (None, None))
        known = self._bounds.get(atom)
        if known is None:
            known = bounds(atom, self.forms.ranges)
            self._bounds[atom] = known
        return known

    def lower(self, form: Form) -> int | None:
        total = form.constant
        for atom, coefficient in form.terms.items():
            low, high = self.range_of(atom)
            bound = low if coefficient > 0 else high
            if bound is None:
                return None
            total += coefficient * bound
        return total

    def interval(self, form: Form) -> Interval:
        upper = self.lower(form.scaled(-1))
        return self.lower(form), None if upper is None else -upper

    def nonnegative(self, form: Form) -> bool:
        low = self.lower(form)
        if low is not None and low >= 0:
            return True
        if form.is_constant:
            return False
        facts = (*self.facts, *atom_facts(form, self.forms))
        return self._search(form, facts, [SEARCH_LIMIT]) or self._by_cases(form) or self._by_multiplying(form)

    def is_zero_loop(self, var: Var) -> bool:
        """Whether a loop variable can only be 0."""
        return self.nonnegative(Form({var: -1}))

    def _search(self, form: Form, facts: Sequence[Form], budget: list[int]) -> bool:
        """Subtract multiples of facts that cancel an atom, depth first."""
        for i, fact in enumerate(facts):
            for multiple in self._multiples(form, fact):
                budget[0] -= 1
                rest = form.plus(fact, -multiple)
                low = self.lower(rest)
                if low is not None and low >= 0:
                    return True
                if budget[0] <= 0:
                    return False
                if len(rest.terms) <= len(form.terms) + 1 and self._search(rest, facts[i + 1 :], budget):
                    return True
        return False

    def _multiples(self, form: Form, fact: Form) -> Iterator[int]:
        seen: set[int] = set()
        for atom, coefficient in fact.terms.items():
            wanted = form.terms.get(atom, 0)
            multiple = wanted // coefficient
            useful = multiple > 0 and wanted % coefficient == 0 and not self._is_bounded(atom, wanted)
            if useful and multiple not in seen:
                seen.add(multiple)
                yield multiple

    def _is_bounded(self, atom: Expr, coefficient: int) -> bool:
        """Whether ``coefficient * atom`` is least at zero, so that cancelling it gains nothing."""
        low, high = self.range_of(atom)
        return (low if coefficient > 0 else high) == 0

    def _by_cases(self, form: Form) -> bool:
        for atom, coefficient in form.terms.items():
            if isinstance(atom, Binary) and atom.op == ("min" if coefficient > 0 else "max"):
                rest = form.plus(Form({atom: 1}), -coefficient)
                cases = (self.forms.of(atom.left), self.forms.of(atom.right))
            elif isinstance(atom, Select):
                rest = form.plus(Form({atom: 1}), -coefficient)
                cases = (self.forms.of(atom.on_true), self.forms.of(atom.on_false))
            else:
                continue
            return all(self.nonnegative(rest.plus(case, coefficient)) for case in cases)
        return False

    def _by_multiplying(self, form: Form) -> bool:
        """``r - x // n >= 0`` as ``(r + 1) * n > x``, and ``r + x // n >= 0`` as ``r * n + x >= 0``, for n >= 1."""
        for atom, coefficient in form.terms.items():
            if abs(coefficient) != 1 or not isinstance(atom, Binary) or atom.op != "floordiv":
                continue
            divisor, rest = self.forms.of(atom.right), form.plus(Form({atom: 1}), -coefficient)
            if not self.nonnegative(divisor.add(-1)):
                continue
            scaled = product(rest.add(1), divisor).add(-1) if coefficient < 0 else product(rest, divisor)
            return self.nonnegative(scaled.plus(self.forms.of(atom.left), coefficient))
        return False
