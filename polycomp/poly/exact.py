"""Tier two of legality: exact questions to isl, asked in the space of loop variables.

Point expressions are affine in loop variables, so a problem is stated over the loops of one or two leaves instead of
inverting tile maps; the variables of the first leaf of a pair that are not shared get a prime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import islpy as isl

from polycomp.expr import Binary, Expr, Var, substitute
from polycomp.poly.accesses import Condition, condition_is_affine
from polycomp.poly.affine import Frame, NotAffineError, condition_forms, isl_variables, size_parameters
from polycomp.poly.leaves import Schedule, Scheduled, Touch
from polycomp.poly.linear import Form, linear_facts
from polycomp.poly.tree import Loop

Values = Mapping[Expr, int]
"""What a sampled point gives each variable."""

Renaming = Mapping[Var, Var]


class UndecidedError(Exception):
    """isl gave up (its quota is spent), or the question is not affine. Never leaves this package."""


class Problem:
    """A conjunction of constraints over named variables, to be put into a frame."""

    def __init__(self, schedule: Schedule, dims: Sequence[Var] = ()) -> None:
        self.schedule, self.forms = schedule, schedule.forms
        self.dims: list[Var] = list(dims)
        self.nonnegative: list[Form] = []
        self.zero: list[Form] = []
        self.conditions: list[Condition] = []

    def add_box(self, var: Var, extent: Form) -> None:
        """A new dimension ``0 <= var < extent``."""
        if var in self.dims:
            return
        self.dims.append(var)
        self.nonnegative += [Form({var: 1}), extent.plus(Form({var: 1}), -1).add(-1)]

    def add_leaf(self, leaf: Scheduled, names: Renaming) -> None:
        """The leaf's loops (those already present are shared) and guards."""
        for loop in leaf.loops:
            extent = self.forms.renamed(self.schedule.extent_of(loop), names)
            self.add_box(names.get(loop.var, loop.var), extent)
        self.add_conditions(((g, True) for g in leaf.leaf.guards), names)

    def add_touch(self, touch: Touch, names: Renaming) -> None:
        """The conditions under which an access happens, and its unknown indices."""
        for var in touch.unknowns:
            new = names.get(var, var)
            if new not in self.dims:
                self.dims.append(new)
                self.nonnegative.append(Form({new: 1}))
        self.add_conditions(touch.conditions, names)

    def add_conditions(self, conditions: Iterable[Condition], names: Renaming) -> None:
        new: Mapping[Var, Expr] = dict(names)
        for condition, holds in conditions:
            renamed = substitute(condition, new) if new else condition
            facts, complete = linear_facts(renamed, holds, self.forms)
            if complete and condition_is_affine(renamed):
                self.nonnegative += facts
            else:
                self.conditions.append((renamed, holds))

    def add_equal(self, first: Iterable[Form], second: Iterable[Form]) -> None:
        self.zero += [a.plus(b, -1) for a, b in zip(first, second, strict=True)]

    def add_same_position(self, first: Sequence[Form], second: Sequence[Form], folds: Sequence[int]) -> list[Var]:
        """Require that two elements are at one position of their buffer; see :class:`Allocate` for ``folds``.

        Along each folded dimension, ``first - second`` is the fold times a new variable; the result lists those.
        """
        turns: list[Var] = []
        for d, (a, b) in enumerate(zip(first, second, strict=True)):
            difference = a.plus(b, -1)
            if folds and folds[d]:
                turns.append(Var(f"turn.{d}^"))
                difference = difference.plus(Form({turns[-1]: 1}), -folds[d])
            self.zero.append(difference)
        self.dims += turns
        return turns

    def add_before(self, loop: Loop | None, names: Renaming) -> None:
        """Require that the renamed variable of ``loop`` is smaller than the loop's own."""
        if loop is not None:
            self.nonnegative.append(Form({loop.var: 1}).plus(Form({names[loop.var]: 1}), -1).add(-1))

    def variables(self) -> dict[Expr, None]:
        """All variables in use, dimensions and sizes."""
        forms = [*self.nonnegative, *self.zero]
        forms += [f for condition, _ in self.conditions for f in condition_forms(condition, self.forms)]
        return isl_variables(forms, self.forms)

    def solutions(self, frame: Frame, unknown: bool | None = True) -> isl.Set:
        """The points where all constraints hold. Conditions that are not affine count as ``unknown`` (None: raise)."""
        result = frame.where((*self.nonnegative, *self._size_bounds(frame)), self.zero)
        for condition, holds in self.conditions:
            result = result.intersect(frame.condition(condition, holds, unknown))
        return result

    def _size_bounds(self, frame: Frame) -> Iterator[Form]:
        for size in frame.sizes:
            low, high = self._bounds_of(size)
            if low is not None:
                yield Form({size: 1}, -low)
            if high is not None:
                yield Form({size: -1}, high)

    def _bounds_of(self, size: Expr) -> tuple[int | None, int | None]:
        if isinstance(size, Var):
            return self.forms.ranges.get(size, (0, None))
        assert isinstance(size, Binary)
        (a, b), (c, d) = self._bounds_of(size.left), self._bounds_of(size.right)
        low = a * c if a is not None and c is not None and a >= 0 and c >= 0 else None
        high = b * d if low is not None and b is not None and d is not None else None
        return low, high


class Exact:
    """Asks isl, within a quota of isl operations for the whole verification. ``asked`` counts the questions."""

    def __init__(self, schedule: Schedule, quota: int) -> None:
        self.schedule = schedule
        self.context = isl.Context()
        self.context.set_max_operations(quota)
        self.asked = 0

    def sample(self, problem: Problem) -> Values | None:
        """A solution of ``problem``, or None when there is none. Raises :class:`UndecidedError`."""
        self.asked += 1
        try:
            frame = self._frame(problem.variables(), problem.dims)
            return frame.sample(problem.solutions(frame))
        except (NotAffineError, isl.Error) as error:
            raise UndecidedError(str(error)) from error

    def uncovered(self, wanted: Problem, pieces: Iterable[Problem]) -> Values | None:
        """A solution of ``wanted`` whose variables can be extended to a solution of no piece; or None.

        The dimensions of each piece begin with those of ``wanted``. Raises :class:`UndecidedError`.
        """
        self.asked += 1
        every = list(pieces)
        found = {v: None for p in (wanted, *every) for v in p.variables()}
        all_dims = {d for p in (wanted, *every) for d in p.dims}
        try:
            sizes = size_parameters(found, all_dims)
            frame = Frame(self.context, self.schedule.forms, sizes, wanted.dims)
            rest = wanted.solutions(frame).coalesce()
            for piece in every:
                if rest.is_empty():
                    break
                rest = rest.subtract(self._projected(piece, sizes, len(wanted.dims))).coalesce()
            return frame.sample(rest)
        except (NotAffineError, isl.Error) as error:
            raise UndecidedError(str(error)) from error

    def _projected(self, piece: Problem, sizes: tuple[Expr, ...], keep: int) -> isl.Set:
        frame = Frame(self.context, self.schedule.forms, sizes, piece.dims)
        return frame.without_last(piece.solutions(frame, None), len(piece.dims) - keep)

    def _frame(self, found: Iterable[Expr], dims: Sequence[Var]) -> Frame:
        return Frame(self.context, self.schedule.forms, size_parameters(found, dims), dims)


def primed(
    schedule: Schedule, leaf: Scheduled, shared: frozenset[Var], unknowns: Iterable[Var] = (), prime: str = "'"
) -> Renaming:
    """New names for the variables of ``leaf`` that are not ``shared``; their bounds are made known."""
    names = {v: Var(f"{v.name}{prime}") for v in (*(loop.var for loop in leaf.loops), *unknowns) if v not in shared}
    for old, new in names.items():
        schedule.forms.ranges[new] = schedule.forms.ranges[old]
    return names


def orders(first: Scheduled, second: Scheduled, base: int, common: int) -> Iterator[tuple[int, Loop | None]]:
    """The ways in which an instance of ``first`` can come before one of ``second``, innermost first.

    Each is a depth and a loop: all loops above that depth have equal iterations, and the loop's iteration (when not
    None) is smaller in ``first``. Loops above depth ``base`` are equal in any case; ``common`` nodes are shared.
    """
    if first is not second and first.positions[common] < second.positions[common]:
        yield common, None
    for depth in range(common - 1, base - 1, -1):
        node = first.path[depth]
        if isinstance(node, Loop):
            yield depth, node


class PairProblem:
    """Two leaves of which the loops above ``depth`` have equal iterations."""

    def __init__(
        self, schedule: Schedule, first: Scheduled, second: Scheduled, depth: int,
        touches: tuple[Touch, Touch] | None = None,
    ) -> None:  # fmt: skip
        shared = frozenset(loop.var for loop in second.loops_outside(depth))
        unknowns = touches[0].unknowns if touches is not None else ()
        self.names = primed(schedule, first, shared, unknowns)
        self.forms = schedule.forms
        self.problem = Problem(schedule)
        self.problem.add_leaf(second, {})
        self.problem.add_leaf(first, self.names)
        if touches is not None:
            self.problem.add_touch(touches[1], {})
            self.problem.add_touch(touches[0], self.names)

    def first(self, form: Form) -> Form:
        """``form`` in the variables of the first leaf."""
        return self.forms.renamed(form, self.names)

    def equate(self, first: Iterable[Form], second: Iterable[Form]) -> None:
        self.problem.add_equal(map(self.first, first), second)

    def precede(self, loop: Loop | None) -> None:
        """Require that the first instance's iteration of ``loop`` is smaller."""
        self.problem.add_before(loop, self.names)
