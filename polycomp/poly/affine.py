"""From index expressions to isl: the only place where dimensions get positions.

A :class:`Frame` is an isl space whose dimensions stand for variables. All objects made by one frame share its space,
so they can be combined freely; the caller names variables and never positions. Objects are built, not parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import islpy as isl

from polycomp.dtypes import DType
from polycomp.expr import Binary, Compare, Const, Expr, Select, Unary, Var, to_text
from polycomp.poly.linear import NEGATED, Form, Forms, product_factors

_SET = isl.dim_type.set
_PARAM = isl.dim_type.param


class NotAffineError(Exception):
    """An index expression that isl cannot represent; never leaves this package."""


def isl_variables(forms: Iterable[Form], converter: Forms) -> dict[Expr, None]:
    """The variables and products that an isl space needs to hold ``forms``, in order of first use."""
    found: dict[Expr, None] = {}
    stack = list(forms)[::-1]
    while stack:
        for atom in stack.pop().terms:
            if isinstance(atom, Var) or (isinstance(atom, Binary) and atom.op == "mul"):
                found[atom] = None
            elif isinstance(atom, Binary):
                stack += [converter.of(atom.left), converter.of(atom.right)]
            elif isinstance(atom, Select):
                stack += [*condition_forms(atom.condition, converter)]
                stack += [converter.of(atom.on_true), converter.of(atom.on_false)]
    return found


def condition_forms(condition: Expr, converter: Forms) -> tuple[Form, ...]:
    """The forms that are compared in ``condition``."""
    if isinstance(condition, Compare) and condition.left.dtype is DType.INT64:
        return (converter.of(condition.left), converter.of(condition.right))
    if isinstance(condition, Binary):
        return (*condition_forms(condition.left, converter), *condition_forms(condition.right, converter))
    if isinstance(condition, Unary):
        return condition_forms(condition.operand, converter)
    return ()


class Frame:
    """An isl space with one parameter per size (or product of sizes) and one set dimension per variable.

    ``dims`` come in the order given. A product of sizes is a parameter of its own, named by its text.
    """

    def __init__(self, context: isl.Context, forms: Forms, sizes: Iterable[Expr], dims: Sequence[Var]) -> None:
        self.context, self.forms, self.dims = context, forms, tuple(dims)
        self.sizes = tuple(sizes)
        space = isl.Space.set_alloc(context, len(self.sizes), len(self.dims))
        for i, size in enumerate(self.sizes):
            space = space.set_dim_name(_PARAM, i, to_text(size))
        self.space = space
        self._local = isl.LocalSpace.from_space(space)
        self._zero = isl.Aff.zero_on_domain(self._local)
        self._places: dict[Expr, tuple[isl.dim_type, int]] = {s: (_PARAM, i) for i, s in enumerate(self.sizes)}
        self._places |= {v: (isl.dim_type.in_, i) for i, v in enumerate(self.dims)}

    def value(self, number: int) -> isl.Val:
        """An isl value; any size of integer."""
        if -(2**31) <= number < 2**31:
            return isl.Val.int_from_si(self.context, number)
        return isl.Val.read_from_str(self.context, str(number))

    def affine(self, form: Form) -> isl.Aff | isl.PwAff:
        """``form`` as a (piecewise) affine expression; raises :class:`NotAffineError`."""
        linear = self._zero.set_constant_val(self.value(form.constant))
        others: list[tuple[Expr, int]] = []
        for atom, coefficient in form.terms.items():
            place = self._places.get(atom)
            if place is None:
                others.append((atom, coefficient))
            else:
                linear = linear.set_coefficient_val(*place, self.value(coefficient))
        result: isl.Aff | isl.PwAff = linear
        for atom, coefficient in others:
            result = _added(result, self._atom(atom).scale_val(self.value(coefficient)))
        return result

    def _atom(self, atom: Expr) -> isl.Aff | isl.PwAff:
        if isinstance(atom, Select):
            where = self.condition(atom.condition, True, None)
            on_true, on_false = (_piecewise(self.affine(self.forms.of(e))) for e in (atom.on_true, atom.on_false))
            return on_true.intersect_domain(where).union_add(on_false.subtract_domain(where))
        if not isinstance(atom, Binary):
            raise NotAffineError(to_text(atom))
        left, right = self.forms.of(atom.left), self.forms.of(atom.right)
        if atom.op in ("floordiv", "floormod") and right.is_constant and right.constant > 0:
            divisor = self.value(right.constant)
            dividend = self.affine(left)
            return dividend.mod_val(divisor) if atom.op == "floormod" else dividend.scale_down_val(divisor).floor()
        if atom.op in ("min", "max"):
            a, b = _piecewise(self.affine(left)), _piecewise(self.affine(right))
            return a.min(b) if atom.op == "min" else a.max(b)
        raise NotAffineError(to_text(atom))

    def universe(self) -> isl.Set:
        return isl.Set.universe(self.space)

    def empty(self) -> isl.Set:
        return isl.Set.empty(self.space)

    def where(self, nonnegative: Iterable[Form] = (), zero: Iterable[Form] = ()) -> isl.Set:
        """The points where all ``nonnegative`` forms are >= 0 and all ``zero`` forms are 0."""
        basic = isl.BasicSet.universe(self.space)
        pieces: list[isl.Set] = []
        for forms, equal in ((zero, True), (nonnegative, False)):
            for form in forms:
                aff = self.affine(form)
                if isinstance(aff, isl.PwAff):
                    pieces.append(aff.zero_set() if equal else aff.nonneg_set())
                    continue
                make = isl.Constraint.equality_from_aff if equal else isl.Constraint.inequality_from_aff
                basic = basic.add_constraint(make(aff))
        result = isl.Set.from_basic_set(basic)
        for piece in pieces:
            result = result.intersect(piece)
        return result

    def condition(self, e: Expr, holds: bool, unknown: bool | None) -> isl.Set:
        """Where ``e`` has the truth value ``holds``. What depends on data or is not affine counts as ``unknown``
        (True: it may hold, so everywhere; False: nowhere; None raises :class:`NotAffineError`)."""
        if isinstance(e, Const):
            return self.universe() if bool(e.value) == holds else self.empty()
        if isinstance(e, Unary) and e.op == "not":
            return self.condition(e.operand, not holds, unknown)
        if isinstance(e, Binary) and e.op in ("and", "or") and e.dtype is DType.BOOL:
            left, right = self.condition(e.left, holds, unknown), self.condition(e.right, holds, unknown)
            return left.intersect(right) if (e.op == "and") == holds else left.union(right)
        if isinstance(e, Compare) and e.left.dtype is DType.INT64:
            try:
                return self._comparison(e, holds)
            except NotAffineError:
                if unknown is None:
                    raise
        if unknown is None:
            raise NotAffineError(to_text(e))
        return self.universe() if unknown else self.empty()

    def _comparison(self, e: Compare, holds: bool) -> isl.Set:
        difference = _piecewise(self.affine(self.forms.of(e.left).plus(self.forms.of(e.right), -1)))
        zero = _piecewise(self._zero)
        match e.op if holds else NEGATED[e.op]:
            case "lt":
                return zero.gt_set(difference)
            case "le":
                return zero.ge_set(difference)
            case "gt":
                return difference.gt_set(zero)
            case "ge":
                return difference.nonneg_set()
            case "eq":
                return difference.zero_set()
        return difference.ne_set(zero)

    def without_last(self, s: isl.Set, count: int) -> isl.Set:
        """``s`` projected onto all dimensions but the last ``count``; it belongs to a frame with those fewer."""
        return s.project_out(_SET, len(self.dims) - count, count)

    def limits(self, s: isl.Set, var: Var) -> tuple[int | None, int | None]:
        """The least and the greatest value of ``var`` in ``s``; None is unbounded (or an empty set)."""
        _, place = self._places[var]
        limits = (s.dim_min_val(place), s.dim_max_val(place))
        low, high = (int(v.to_python()) if v.is_int() else None for v in limits)
        return low, high

    def sample(self, s: isl.Set) -> Mapping[Expr, int] | None:
        """The values of all variables at the first point of ``s`` (for some sizes); None when it is empty."""
        if s.is_empty():
            return None
        point = s.lexmin().sample_point()
        kinds = ((self.sizes, _PARAM), (self.dims, _SET))
        return {
            v: int(point.get_coordinate_val(kind, i).to_python()) for names, kind in kinds for i, v in enumerate(names)
        }


def size_parameters(found: Iterable[Expr], dims: Iterable[Var]) -> tuple[Expr, ...]:
    """The parameters among ``found``: what is no dimension. Raises :class:`NotAffineError` for a product with one."""
    inner = set(dims)
    sizes = tuple(v for v in found if v not in inner)
    for size in sizes:
        if any(factor in inner or not isinstance(factor, Var) for factor in product_factors(size)):
            raise NotAffineError(to_text(size))
    return sizes


def _piecewise(aff: isl.Aff | isl.PwAff) -> isl.PwAff:
    return aff if isinstance(aff, isl.PwAff) else isl.PwAff.from_aff(aff)


def _added(a: isl.Aff | isl.PwAff, b: isl.Aff | isl.PwAff) -> isl.Aff | isl.PwAff:
    if isinstance(a, isl.Aff) and isinstance(b, isl.Aff):
        return a.add(b)
    return _piecewise(a).add(_piecewise(b))
