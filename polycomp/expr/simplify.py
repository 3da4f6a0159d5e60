"""Normal form and bounds of index (int64) expressions.

An index expression is brought to a sum of integer multiples of products of *atoms* (variables, and divisions, minima
and the like that cannot be taken apart), in a fixed order: two expressions that are equal as polynomials become the
same expression. Divisions and remainders by a constant are split with the ranges of the variables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping

from polycomp.dtypes import DType
from polycomp.expr.nodes import Binary, Compare, Const, Expr, Select, Unary, Var, binary, compare, const, to_text
from polycomp.expr.visit import free_vars, rebuild

Interval = tuple[int | None, int | None]
"""Inclusive bounds; None is unbounded."""

Ranges = Mapping[Var, Interval]

_Monomial = tuple[Expr, ...]
_Polynomial = dict[_Monomial, int]
_Memo = dict[Expr, Expr]
"""Normal forms found so far, themselves included: what is proved about nested minima would take ever longer without."""

_EVERYTHING: Interval = (None, None)


def simplify(e: Expr, ranges: Ranges | None = None) -> Expr:
    """An equal expression in normal form; ``ranges`` are inclusive bounds of variables that may be relied on."""
    return _simplify(e, ranges or {}, {})


def bounds(e: Expr, ranges: Ranges) -> Interval:
    """Inclusive bounds of an int64 expression, by interval arithmetic over its normal form; None is unbounded."""
    return _bounds(e, ranges)


@functools.lru_cache(maxsize=4096)  # a schedule asks for those of the same indices again and again
def linear_in(e: Expr, var: Var) -> tuple[int, Expr] | None:
    """``(c, rest)`` with ``e == c*var + rest`` and ``rest`` free of ``var``; None when ``e`` is not of that form."""
    coefficient = 0
    rest: _Polynomial = {}
    for monomial, factor in _polynomial(simplify(e)).items():
        if monomial == (var,):
            coefficient = factor
        elif any(var in free_vars(atom) for atom in monomial):
            return None
        else:
            rest[monomial] = factor
    return coefficient, _from_polynomial(rest)


def terms(e: Expr) -> list[tuple[int, Expr]]:
    """``e`` as a sum of integer multiples: ``(coefficient, product of atoms)``; the constant has the product 1."""
    return [(c, _product(m, 1) if m else const(1)) for m, c in _polynomial(simplify(e)).items()]


def is_uniform(condition: Expr, lane: Var, count: int, ranges: Ranges) -> bool:
    """Whether ``condition`` certainly holds for all values 0 to ``count - 1`` of ``lane``, or for none of them."""
    if lane not in free_vars(condition):
        return True
    if isinstance(condition, Binary | Unary) and condition.dtype is DType.BOOL:
        return all(is_uniform(operand, lane, count, ranges) for operand in condition.operands)
    if not isinstance(condition, Compare) or condition.op not in ("lt", "le", "gt", "ge"):
        return False
    difference = condition.left - condition.right - (1 if condition.op in ("le", "gt") else 0)  # below 0, or not
    linear = linear_in(simplify(difference, ranges), lane)
    if condition.left.dtype is not DType.INT64 or linear is None:
        return False
    coefficients = {atom: step for step, atom in terms(linear[1])}
    first = coefficients.pop(const(1), 0)
    last = first + linear[0] * (count - 1)
    return first // count == last // count and not any(step % count for step in coefficients.values())


def prove(condition: Expr, ranges: Ranges) -> bool | None:
    """True or False when ``condition`` certainly holds or fails for all variables in ``ranges``, else None."""
    return _prove(condition, ranges, {})


def _prove(condition: Expr, ranges: Ranges, memo: _Memo) -> bool | None:
    if isinstance(condition, Const):
        return bool(condition.value)
    if isinstance(condition, Binary) and condition.op in ("and", "or") and condition.dtype is DType.BOOL:
        return _prove_logical(condition, ranges, memo)
    if not isinstance(condition, Compare) or condition.left.dtype is not DType.INT64:
        return None
    low, high = _bounds(_simplify(condition.left - condition.right, ranges, memo), ranges)
    match condition.op:
        case "lt":
            return _decide(high is not None and high < 0, low is not None and low >= 0)
        case "le":
            return _decide(high is not None and high <= 0, low is not None and low > 0)
        case "gt":
            return _decide(low is not None and low > 0, high is not None and high <= 0)
        case "ge":
            return _decide(low is not None and low >= 0, high is not None and high < 0)
        case "eq":
            return _decide(low == high == 0, _excludes_zero(low, high))
        case _:
            return _decide(_excludes_zero(low, high), low == high == 0)


def _excludes_zero(low: int | None, high: int | None) -> bool:
    return (low is not None and low > 0) or (high is not None and high < 0)


def _decide(yes: bool, no: bool) -> bool | None:
    return True if yes else False if no else None


def _prove_logical(e: Binary, ranges: Ranges, memo: _Memo) -> bool | None:
    left, right = _prove(e.left, ranges, memo), _prove(e.right, ranges, memo)
    if e.op == "and":
        return False if False in (left, right) else True if left and right else None
    return True if True in (left, right) else False if left is False and right is False else None


def _simplify(e: Expr, ranges: Ranges, memo: _Memo) -> Expr:
    if isinstance(e, Const | Var):
        return e
    known = memo.get(e)
    if known is not None:
        return known
    result = _simplify_node(rebuild(e, tuple(_simplify(c, ranges, memo) for c in e.operands)), ranges, memo)
    memo[e] = memo[result] = result
    return result


def _simplify_node(e: Expr, ranges: Ranges, memo: _Memo) -> Expr:
    if isinstance(e, Compare) and e.left.dtype is DType.INT64:
        decided = _prove(e, ranges, memo)
        return e if decided is None else const(decided, DType.BOOL)
    if isinstance(e, Binary) and e.dtype is DType.BOOL:
        return _simplify_bool(e)
    if isinstance(e, Select) and isinstance(e.condition, Const):
        return e.on_true if e.condition.value else e.on_false
    if not isinstance(e, Binary) or e.dtype is not DType.INT64:
        return e
    if e.op in ("add", "sub", "mul"):
        return _from_polynomial(_recombine(_polynomial(e), ranges))
    if e.op in ("floordiv", "floormod") and isinstance(e.right, Const) and e.right.value > 0:
        return _simplify_division(e.op, e.left, int(e.right.value), ranges)
    if e.op in ("floordiv", "floormod"):
        return _divide_symbolic(e, ranges, memo)
    if e.op in ("min", "max"):
        return _simplify_extremum(e, ranges, memo)
    return e


def _simplify_bool(e: Binary) -> Expr:
    for constant, other in ((e.left, e.right), (e.right, e.left)):
        if isinstance(constant, Const) and e.op == "and":
            return other if constant.value else constant
        if isinstance(constant, Const) and e.op == "or":
            return constant if constant.value else other
    return e.left if e.left == e.right and e.op in ("and", "or") else e


def _polynomial(e: Expr) -> _Polynomial:
    if isinstance(e, Const):
        return {(): int(e.value)} if e.value else {}
    if isinstance(e, Binary) and e.op in ("add", "sub"):
        return _add(_polynomial(e.left), _polynomial(e.right), 1 if e.op == "add" else -1)
    if isinstance(e, Binary) and e.op == "mul":
        return _multiply(_polynomial(e.left), _polynomial(e.right))
    return {(e,): 1}


def _recombine(p: _Polynomial, ranges: Ranges) -> _Polynomial:
    """``d*q*(x // d) + q*(x % d)`` is ``q*x``: what fusing two loops of a row-major access leaves behind."""
    for monomial, coefficient in p.items():
        for position, atom in enumerate(monomial):
            if not (isinstance(atom, Binary) and atom.op == "floormod" and isinstance(atom.right, Const)):
                continue
            divisor = int(atom.right.value)
            factor: _Polynomial = {monomial[:position] + monomial[position + 1 :]: coefficient}
            for quotient in quotients(atom.left, divisor, ranges):
                parts = _multiply({m: c * divisor for m, c in factor.items()}, _polynomial(quotient))
                if parts and all(p.get(m) == c for m, c in parts.items()):
                    rest = {m: c for m, c in p.items() if m != monomial and m not in parts}
                    return _recombine(_add(rest, _multiply(factor, _polynomial(atom.left)), 1), ranges)
    return p


def quotients(dividend: Expr, divisor: int, ranges: Ranges) -> Iterator[Expr]:
    """``dividend // divisor`` in the forms that :func:`simplify` may have brought it to: common factors cancelled, and
    a quotient of a quotient, or of a sum with one, made one quotient."""
    if divisor <= 0:
        return
    yield _nested_division(dividend, divisor)
    yield _simplify_division("floordiv", dividend, divisor, ranges)
    polynomial = _polynomial(dividend)
    for monomial, coefficient in polynomial.items():
        atom = monomial[0] if len(monomial) == 1 and coefficient == 1 else None
        if (
            isinstance(atom, Binary)
            and atom.op == "floordiv"
            and isinstance(atom.right, Const)
            and atom.right.value > 0
        ):
            inner = int(atom.right.value)
            others = {m: c * inner for m, c in polynomial.items() if m != monomial}
            whole = _from_polynomial(_add(_polynomial(atom.left), others, 1))
            yield _simplify_division("floordiv", whole, inner * divisor, ranges)


def _add(a: _Polynomial, b: _Polynomial, sign: int) -> _Polynomial:
    result = dict(a)
    for monomial, coefficient in b.items():
        total = result.get(monomial, 0) + sign * coefficient
        if total:
            result[monomial] = total
        else:
            result.pop(monomial, None)
    return result


def _multiply(a: _Polynomial, b: _Polynomial) -> _Polynomial:
    result: _Polynomial = {}
    for m, x in a.items():
        for n, y in b.items():
            result = _add(result, {tuple(sorted(m + n, key=to_text)): x * y}, 1)
    return result


def _from_polynomial(p: _Polynomial) -> Expr:
    terms = sorted(p.items(), key=lambda item: (-len(item[0]), tuple(map(to_text, item[0]))))
    positive = [t for t in terms if t[1] > 0 and t[0]]
    negative = [t for t in terms if t[1] < 0 and t[0]]
    result: Expr = const(0)
    for monomial, coefficient in positive + negative:
        term = _product(monomial, abs(coefficient))
        result = binary("add" if coefficient > 0 else "sub", result, term)
    constant = p.get((), 0)
    return binary("add" if constant >= 0 else "sub", result, const(abs(constant)))


def _product(monomial: _Monomial, coefficient: int) -> Expr:
    result = monomial[0]
    for atom in monomial[1:]:
        result = Binary("mul", result, atom)
    return binary("mul", result, const(coefficient))


def _simplify_division(op: str, dividend: Expr, divisor: int, ranges: Ranges) -> Expr:
    """Split ``dividend`` into multiples of ``divisor`` and a rest; the rest often lies within [0, divisor)."""
    if divisor == 1:
        return dividend if op == "floordiv" else const(0)
    whole: _Polynomial = {}
    rest: _Polynomial = {}
    for monomial, coefficient in _polynomial(dividend).items():
        quotient, remainder = divmod(coefficient, divisor)
        if monomial and remainder:  # c*x with c not a multiple: keep it whole, splitting c would break ranges
            rest[monomial] = coefficient
            continue
        if quotient:
            whole[monomial] = quotient
        if remainder:
            rest[monomial] = remainder
    remainder_expr = _from_polynomial(rest)
    low, high = _bounds(remainder_expr, ranges)
    if low is not None and high is not None and low // divisor == high // divisor:
        step = low // divisor
        if op == "floordiv":
            return _from_polynomial(_add(whole, {(): step} if step else {}, 1))
        return _from_polynomial(_add(rest, {(): step * divisor} if step else {}, -1))
    split = _split_by_step(rest, divisor, ranges)
    if split is not None:
        step, coarse, fine = split
        outer = _simplify_division(op, coarse, divisor // step, ranges)
        if op == "floordiv":
            return _from_polynomial(_add(whole, _polynomial(outer), 1))
        return _from_polynomial(_add({m: c * step for m, c in _polynomial(outer).items()}, fine, 1))
    if op == "floordiv":
        reduced, factor = _cancel(rest, divisor)
        inner = _nested_division(reduced, divisor // factor)
        return _from_polynomial(_add(whole, {(inner,): 1}, 1))
    return binary("floormod", remainder_expr, const(divisor))


def _split_by_step(rest: _Polynomial, divisor: int, ranges: Ranges) -> tuple[int, Expr, _Polynomial] | None:
    """``rest`` as ``step*coarse + fine`` with ``step`` a divisor of ``divisor`` and ``0 <= fine < step``.

    Then ``rest // divisor`` is ``coarse // (divisor/step)``, and ``rest % divisor`` is
    ``step*(coarse % (divisor/step)) + fine``. Returns (step, coarse, fine).
    """
    for step in sorted({abs(c) for m, c in rest.items() if m and abs(c) > 1 and divisor % abs(c) == 0}):
        coarse = {m: c // step for m, c in rest.items() if m and c % step == 0}
        fine = {m: c for m, c in rest.items() if not m or c % step}
        low, high = _bounds(_from_polynomial(fine), ranges)
        if fine and low is not None and high is not None and low >= 0 and high < step:
            return step, _from_polynomial(coarse), fine
    return None


def _cancel(rest: _Polynomial, divisor: int) -> tuple[Expr, int]:
    """Divide ``rest`` and the divisor by their common factor: (6*i + 4) // 8 is (3*i + 2) // 4."""
    common = math.gcd(divisor, *(c for m, c in rest.items() if m))
    if common == 1 or common == divisor:
        return _from_polynomial(rest), 1
    return _from_polynomial({m: c // common for m, c in rest.items() if c // common}), common


def _nested_division(e: Expr, divisor: int) -> Expr:
    """``(x // a) // b`` is ``x // (a*b)`` for positive a and b."""
    if isinstance(e, Binary) and e.op == "floordiv" and isinstance(e.right, Const) and e.right.value > 0:
        return binary("floordiv", e.left, const(int(e.right.value) * divisor))
    return binary("floordiv", e, const(divisor))


def _divide_symbolic(e: Binary, ranges: Ranges, memo: _Memo) -> Expr:
    """``(q*n + r) // n`` and ``% n`` for a symbolic n >= 1, when 0 <= r < n can be seen from the ranges."""
    divisor = _polynomial(e.right)
    if len(divisor) != 1:
        return e
    ((monomial, coefficient),) = divisor.items()
    if coefficient != 1 or not monomial:
        return e
    whole: _Polynomial = {}
    rest: _Polynomial = {}
    for term, factor in _polynomial(e.left).items():
        quotient = _remove_atoms(term, monomial)
        if quotient is None:
            rest[term] = factor
        else:
            whole[quotient] = whole.get(quotient, 0) + factor
    remainder = _from_polynomial(rest)
    inside = binary("and", compare("ge", remainder, 0), compare("lt", remainder, e.right))
    if _prove(inside, ranges, memo):
        return _from_polynomial(whole) if e.op == "floordiv" else remainder
    return e


def _remove_atoms(monomial: _Monomial, atoms: _Monomial) -> _Monomial | None:
    remaining = list(monomial)
    for atom in atoms:
        if atom not in remaining:
            return None
        remaining.remove(atom)
    return tuple(remaining)


def _simplify_extremum(e: Binary, ranges: Ranges, memo: _Memo) -> Expr:
    if e.left == e.right:
        return e.left
    low, high = _bounds(_simplify(e.left - e.right, ranges, memo), ranges)
    if high is not None and high <= 0:
        return e.left if e.op == "min" else e.right
    if low is not None and low >= 0:
        return e.right if e.op == "min" else e.left
    return e


def _bounds(e: Expr, ranges: Ranges) -> Interval:
    if isinstance(e, Const):
        return (int(e.value), int(e.value))
    if isinstance(e, Var):
        return ranges.get(e, _EVERYTHING)
    if isinstance(e, Select):
        return _hull(_bounds(e.on_true, ranges), _bounds(e.on_false, ranges))
    if not isinstance(e, Binary) or e.dtype is not DType.INT64:
        return _EVERYTHING
    a, b = _bounds(e.left, ranges), _bounds(e.right, ranges)
    match e.op:
        case "add":
            return (_plus(a[0], b[0]), _plus(a[1], b[1]))
        case "sub":
            return (_plus(a[0], _negate(b[1])), _plus(a[1], _negate(b[0])))
        case "mul":
            return _bounds_of_product(a, b)
        case "min":
            return (_least(a[0], b[0]), _greatest_known(a[1], b[1], min))
        case "max":
            return (_greatest_known(a[0], b[0], max), None if None in (a[1], b[1]) else max(a[1], b[1]))  # type: ignore[type-var]
        case "floordiv" if b[0] is not None and b[0] > 0 and b[0] == b[1]:
            return (None if a[0] is None else a[0] // b[0], None if a[1] is None else a[1] // b[0])
        case "floordiv" if b[0] is not None and b[0] > 0 and a[0] is not None and a[0] >= 0:
            return (0, None if a[1] is None else a[1] // b[0])
        case "floormod" if b[0] is not None and b[0] > 0:
            return _bounds_of_remainder(a, b)
    return _EVERYTHING


def _bounds_of_remainder(a: Interval, b: Interval) -> Interval:
    high = None if b[1] is None else b[1] - 1
    if a[0] is not None and a[0] >= 0 and a[1] is not None:
        high = a[1] if high is None else min(high, a[1])
    return (0, high)


def _hull(a: Interval, b: Interval) -> Interval:
    return (_least(a[0], b[0]), None if a[1] is None or b[1] is None else max(a[1], b[1]))


def _plus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _negate(a: int | None) -> int | None:
    return None if a is None else -a


def _least(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else min(a, b)


def _greatest_known(a: int | None, b: int | None, pick: type | object) -> int | None:
    known = [x for x in (a, b) if x is not None]
    return pick(known) if known else None  # type: ignore[operator]


def _bounds_of_product(a: Interval, b: Interval) -> Interval:
    if None not in a and None not in b:
        corners = [x * y for x in a for y in b]  # type: ignore[operator]
        return (min(corners), max(corners))
    if a[0] is not None and b[0] is not None and a[0] >= 0 and b[0] >= 0:
        return (a[0] * b[0], None if a[1] is None or b[1] is None else a[1] * b[1])
    return _EVERYTHING
