"""Which elements a set of accesses touches, as a box that moves with the outer loops.

Used to size the buffers of tensors that are computed or copied per tile. Affine indices are done by interval arithmetic
in plain Python; isl finds the hull of several accesses that are not a constant apart.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import islpy as isl

from polycomp.errors import ScheduleError
from polycomp.expr import (
    Binary,
    Expr,
    Interval,
    Select,
    Var,
    binary,
    bounds,
    const,
    free_vars,
    simplify,
    wrap,
)
from polycomp.poly.accesses import condition_is_affine
from polycomp.poly.affine import Frame, NotAffineError, isl_variables, size_parameters
from polycomp.poly.linear import Form, Forms, Prover
from polycomp.te import Dim

Region = tuple[tuple[Expr, Dim] | None, ...]
"""Per dimension: the first element, over outer variables, and how many elements there are (constant or over sizes);
None where no box is known, so that only the whole dimension is safe."""


_QUOTA = 1_000_000
"""How many isl operations the box of one dimension may take."""


@dataclasses.dataclass(frozen=True)
class _Hull:
    """``low <= index <= low + width``."""

    low: Form
    width: Form


def required_region(
    indices: Sequence[tuple[Expr, ...]], inner: Mapping[Var, Dim], ranges: Mapping[Var, Interval]
) -> Region:
    """The bounding box of the elements at ``indices`` (one tuple per access) while the ``inner`` variables run over
    ``0 <= var < extent``, as a function of all other variables.

    ``ranges`` are inclusive bounds of the outer variables and sizes. Extents are constants or use sizes only. A
    dimension whose index depends on data, or has no bounds, gives None.
    """
    if not indices:
        raise ScheduleError("no element is accessed, so there is no region to store")
    finder = _Finder(inner, ranges)
    return tuple(finder.dimension([access[d] for access in indices]) for d in range(len(indices[0])))


class _Finder:
    def __init__(self, inner: Mapping[Var, Dim], ranges: Mapping[Var, Interval]) -> None:
        self.inner = dict(inner)
        known: dict[Var, Interval] = dict(ranges)
        for var, extent in inner.items():
            high = bounds(wrap(extent), known)[1]
            known[var] = (0, None if high is None else high - 1)
        self.forms = Forms(known)
        self.prover = Prover(self.forms, ())
        self.extents = {var: self._extent(wrap(extent)) for var, extent in inner.items()}
        self.sizes = frozenset(v for form in self.extents.values() for v in form.variables) - inner.keys()

    def _extent(self, extent: Expr) -> Form:
        """An upper bound of a loop's extent: the last part of a split, ``min(6, n - 6*i)``, counts as a whole one."""
        form = self.forms.of(extent)
        for atom, coefficient in form.terms.items():
            if isinstance(atom, Binary) and atom.op == "min" and coefficient > 0:
                operands = (self.forms.of(atom.left), self.forms.of(atom.right))
                constant = next((o for o in operands if o.is_constant), None)
                if constant is not None:
                    return form.plus(Form({atom: 1}), -coefficient).plus(constant, coefficient)
        return form

    def dimension(self, indices: Sequence[Expr]) -> tuple[Expr, Dim] | None:
        """The box of one dimension, or None."""
        if not all(map(condition_is_affine, indices)):
            return None
        hulls = [self.hull(i) for i in dict.fromkeys(indices)]
        if None not in hulls:
            merged = functools.reduce(self._merged, hulls)
            if merged is not None and self._is_static(merged.width):
                return self._result(merged)
        return self._by_isl(indices, hulls) or self._static(indices)

    def _result(self, hull: _Hull) -> tuple[Expr, Dim]:
        return simplify(hull.low.expr(), self.forms.ranges), _dim(hull.width.add(1))

    def _is_static(self, width: Form) -> bool:
        """Whether nothing but sizes occurs: what extents of inner loops are made of. Other variables are loops."""
        return width.variables <= self.sizes

    def hull(self, e: Expr) -> _Hull | None:
        """Bounds of ``e`` over the inner variables, or None when interval arithmetic finds none."""
        form = self.forms.of(e)
        result: _Hull | None = _Hull(Form({}, form.constant), Form({}))
        for atom, coefficient in form.terms.items():
            part = self._atom(atom)
            if part is None or result is None:
                return None
            low = part.low.scaled(coefficient)
            if coefficient < 0:
                low = low.plus(part.width, coefficient)
            result = _Hull(result.low.plus(low), result.width.plus(part.width, abs(coefficient)))
        return result

    def _atom(self, atom: Expr) -> _Hull | None:
        if isinstance(atom, Var) and atom in self.inner:
            return _Hull(Form({}), self.extents[atom].add(-1))
        if not (free_vars(atom) & self.inner.keys()):
            return _Hull(Form({atom: 1}), Form({}))
        if isinstance(atom, Select):
            return self._merged(self.hull(atom.on_true), self.hull(atom.on_false))
        return self._binary(atom) if isinstance(atom, Binary) else None

    def _binary(self, atom: Binary) -> _Hull | None:
        left, right = self.hull(atom.left), self.hull(atom.right)
        if left is None or right is None:
            return None
        if atom.op in ("min", "max"):
            return self._extremum(atom.op, left, right)
        divisor = right.low.constant
        if atom.op not in ("floordiv", "floormod") or not right.low.is_constant or right.width.terms or divisor <= 0:
            return None
        if not left.width.is_constant:
            return None
        return self._quotient(left, divisor) if atom.op == "floordiv" else self._remainder(left, divisor)

    def _quotient(self, left: _Hull, divisor: int) -> _Hull:
        low = self.forms.of(binary("floordiv", left.low.expr(), const(divisor)))
        phase = self._phase(left.low, divisor)
        slack = divisor - 1 if phase is None else phase
        return _Hull(low, Form({}, (left.width.constant + slack) // divisor))

    def _remainder(self, left: _Hull, divisor: int) -> _Hull:
        phase = self._phase(left.low, divisor)
        if phase is not None and phase + left.width.constant < divisor:
            return _Hull(Form({}, phase), left.width)
        return _Hull(Form({}), Form({}, divisor - 1))

    def _phase(self, low: Form, divisor: int) -> int | None:
        """``low % divisor`` when it is the same everywhere."""
        return None if any(c % divisor for c in low.terms.values()) else low.constant % divisor

    def _extremum(self, op: str, left: _Hull, right: _Hull) -> _Hull | None:
        low = self.forms.of(binary(op, left.low.expr(), right.low.expr()))
        if left.width.is_constant and right.width.is_constant:
            return _Hull(low, Form({}, max(left.width.constant, right.width.constant)))
        return None

    def _merged(self, a: _Hull | None, b: _Hull | None) -> _Hull | None:
        """The hull of both, when it is known which one begins and which one ends."""
        if a is None or b is None:
            return None
        first, second = (a, b) if self.prover.nonnegative(b.low.plus(a.low, -1)) else (b, a)
        distance = second.low.plus(first.low, -1)
        if not self.prover.nonnegative(distance):
            return None
        end = distance.plus(second.width)
        if self.prover.nonnegative(end.plus(first.width, -1)):
            return _Hull(first.low, end)
        return first if self.prover.nonnegative(first.width.plus(end, -1)) else None

    def _by_isl(self, indices: Sequence[Expr], hulls: Sequence[_Hull | None]) -> tuple[Expr, Dim] | None:
        """The narrowest box of constant size that begins a constant away from where one of the accesses does."""
        forms = [self.forms.of(i) for i in indices]
        origins = [h.low for h in hulls if h is not None]
        try:
            boxes = [box for origin in origins if (box := self._box_from(origin, forms)) is not None]
        except (NotAffineError, isl.Error):  # no affine indices, or the quota is spent: the next method is cruder
            return None
        if not boxes:
            return None
        origin, extent = min(boxes, key=lambda box: box[1])
        return simplify(origin.expr(), self.forms.ranges), extent

    def _box_from(self, origin: Form, forms: Sequence[Form]) -> tuple[Form, int] | None:
        """The box at ``origin`` plus a constant; None when its size has no constant bound."""
        extents = [self.forms.of(e) for e in self.inner.values()]
        found = isl_variables((*forms, origin, *extents), self.forms)
        distance = Var("distance^")
        dims = (distance, *(v for v in found if isinstance(v, Var)))
        context = isl.Context()
        context.set_max_operations(_QUOTA)
        frame = Frame(context, self.forms, size_parameters(found, dims), dims)
        domain = [f for v in dims[1:] for f in self._within(v)]
        shifted = (form.plus(origin, -1).plus(Form({distance: 1}), -1) for form in forms)
        distances = [frame.limits(frame.where(domain, [s]), distance) for s in shifted]
        lows, highs = zip(*distances, strict=True)
        if None in lows or None in highs:
            return None
        return origin.add(min(lows)), max(highs) - min(lows) + 1

    def _within(self, var: Var) -> Iterable[Form]:
        if var in self.inner:
            yield self.forms.of(self.inner[var]).plus(Form({var: 1}), -1).add(-1)
        low, high = self.forms.ranges.get(var, (None, None))
        if low is not None:
            yield Form({var: 1}, -low)
        if high is not None:
            yield Form({var: -1}, high)

    def _static(self, indices: Sequence[Expr]) -> tuple[Expr, Dim] | None:
        """The box over all variables, which does not move."""
        lows, highs = zip(*(self.prover.interval(self.forms.of(i)) for i in indices), strict=True)
        if None in lows or None in highs:
            return None
        return const(min(lows)), max(highs) - min(lows) + 1


def _dim(form: Form) -> Dim:
    return form.constant if form.is_constant else form.expr()
