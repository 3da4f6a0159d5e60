"""Index values as polynomials over emitted atoms, so that addresses share bases and lanes show their strides.

An int64 value is ``constant + sum(coefficient * product of atoms)``. An atom is an SSA value (or the vector of lane
numbers) with inclusive bounds. Arithmetic is modulo 2**64, so it is right for int64 data as well as for indices;
bounds are only ever known where no overflow can happen.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

Interval = tuple[int | None, int | None]
Monomial = tuple["Atom", ...]

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Atom:
    """An SSA value of type i64 (``lanes == 0``) or ``<lanes x i{bits}>``, at least ``low`` and at most ``high``.

    Compared by identity: there is one for each SSA value of a function. ``order`` is that of definition: sums are
    built from the outermost loop's atoms inwards, to be hoisted.
    """

    ref: str
    low: int | None
    high: int | None
    order: int
    lanes: int = 0
    bits: int = 64

    @property
    def type(self) -> str:
        return f"<{self.lanes} x i{self.bits}>" if self.lanes else "i64"


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """``constant + sum(coefficient * product(monomial))``. Never changed once made."""

    terms: Mapping[Monomial, int]
    constant: int = 0

    @property
    def is_constant(self) -> bool:
        return not self.terms

    @property
    def is_vector(self) -> bool:
        """Whether the value may differ from lane to lane."""
        return any(atom.lanes for monomial in self.terms for atom in monomial)

    @property
    def lanes(self) -> int:
        return max((atom.lanes for monomial in self.terms for atom in monomial), default=0)


@functools.lru_cache(maxsize=4096)
def constant(value: int) -> Linear:
    return Linear({}, wrap64(value))


def of_atom(atom: Atom) -> Linear:
    return Linear({(atom,): 1})


def wrap64(value: int) -> int:
    return value if _INT64_MIN <= value <= _INT64_MAX else (value + 2**63) % 2**64 - 2**63


def add(a: Linear, b: Linear, sign: int = 1) -> Linear:
    """``a + sign * b``."""
    if not b.terms:
        return Linear(a.terms, wrap64(a.constant + sign * b.constant))
    terms = dict(a.terms)
    for monomial, coefficient in b.terms.items():
        total = wrap64(terms.get(monomial, 0) + sign * coefficient)
        if total:
            terms[monomial] = total
        else:
            terms.pop(monomial, None)
    return Linear(terms, wrap64(a.constant + sign * b.constant))


def scale(a: Linear, factor: int) -> Linear:
    if factor == 1:
        return a
    terms = {m: wrap64(c * factor) for m, c in a.terms.items()}
    return Linear({m: c for m, c in terms.items() if c}, wrap64(a.constant * factor))


def multiply(a: Linear, b: Linear) -> Linear:
    if not a.terms:
        return scale(b, a.constant)
    if not b.terms:
        return scale(a, b.constant)
    result = constant(a.constant * b.constant)
    for m, x in _with_constant(a):
        for n, y in _with_constant(b):
            if m or n:
                product = tuple(sorted(m + n, key=_order))
                result = add(result, Linear({product: wrap64(x * y)}))
    return result


def row_major(indices: Sequence[Linear], sizes: Sequence[int]) -> Linear:
    """The offset of an element in an array of constant ``sizes``."""
    terms: dict[Monomial, int] = {}
    total, stride = 0, 1
    for index, size in zip(reversed(indices), reversed(sizes), strict=True):
        total += index.constant * stride
        for monomial, coefficient in index.terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient * stride
        stride *= size
    return Linear({m: wrap64(c) for m, c in terms.items() if c}, wrap64(total))


def _with_constant(a: Linear) -> Iterable[tuple[Monomial, int]]:
    yield from a.terms.items()
    if a.constant:
        yield (), a.constant


def _order(atom: Atom) -> int:
    return atom.order


def sorted_terms(a: Linear) -> list[tuple[Monomial, int]]:
    """The terms, those over atoms that were defined first coming first."""
    return sorted(a.terms.items(), key=lambda term: [atom.order for atom in reversed(term[0])])


def split_lanes(a: Linear) -> tuple[Linear, Linear]:
    """``a`` as a part that is the same in all lanes (with the constant) and a part that is not."""
    if not a.is_vector:
        return a, constant(0)
    uniform: dict[Monomial, int] = {}
    varying: dict[Monomial, int] = {}
    for monomial, coefficient in a.terms.items():
        target = varying if any(atom.lanes for atom in monomial) else uniform
        target[monomial] = coefficient
    return Linear(uniform, a.constant), Linear(varying)


def bounds(a: Linear) -> Interval:
    """Inclusive bounds by interval arithmetic; None is unbounded."""
    low: int | None = a.constant
    high: int | None = a.constant
    for monomial, coefficient in a.terms.items():
        term = _scaled(_product_bounds(monomial), coefficient)
        low = None if low is None or term[0] is None else low + term[0]
        high = None if high is None or term[1] is None else high + term[1]
        if low is None and high is None:
            break
    return low, high


def _product_bounds(monomial: Monomial) -> Interval:
    low, high = monomial[0].low, monomial[0].high
    for atom in monomial[1:]:
        low, high = multiply_intervals((low, high), (atom.low, atom.high))
    return low, high


def multiply_intervals(a: Interval, b: Interval) -> Interval:
    """Bounds of the product of two values."""
    if a[0] is not None and b[0] is not None and a[0] >= 0 and b[0] >= 0:
        return a[0] * b[0], None if a[1] is None or b[1] is None else a[1] * b[1]
    if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
        return None, None
    corners = [x * y for x in (a[0], a[1]) for y in (b[0], b[1])]
    return min(corners), max(corners)


def _scaled(interval: Interval, factor: int) -> Interval:
    low, high = (None if x is None else x * factor for x in interval)
    return (low, high) if factor >= 0 else (high, low)


def divide_exactly(a: Linear, divisor: int) -> tuple[Linear, Linear]:
    """``(quotient, rest)`` with ``a == divisor * quotient + rest``, the quotient taking all exact multiples."""
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in a.terms.items():
        if coefficient % divisor == 0:
            quotient[monomial] = coefficient // divisor
        else:
            rest[monomial] = coefficient
    return Linear(quotient, a.constant // divisor), Linear(rest, a.constant % divisor)


def granularity(a: Linear, unit: int, limit: int) -> int:
    """The largest power of two, at most ``limit``, that surely divides ``unit`` times the terms of ``a``."""
    common = math.gcd(limit, *(unit * coefficient for coefficient in a.terms.values()))
    return common & -common
