"""What all rules of legality share: the schedule, a prover per leaf, and how isl's answers become violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from polycomp.poly.exact import Exact, Problem, UndecidedError, Values
from polycomp.poly.kernel import Statement
from polycomp.poly.leaves import Schedule, Scheduled
from polycomp.poly.linear import Form, Prover
from polycomp.poly.violations import Violation, ViolationKind
from polycomp.te import Tensor

Make = Callable[[Values], Violation]
"""The violation at a sampled point."""


class Questions:
    """One verification: ``provers`` rely on each leaf's loops and guards, ``exact`` asks isl within a quota."""

    def __init__(self, schedule: Schedule, quota: int) -> None:
        self.schedule, self.forms = schedule, schedule.forms
        self.exact = Exact(schedule, quota)
        self.statements: dict[Tensor, list[Statement]] = {}
        for s in schedule.kernel.statements.values():
            self.statements.setdefault(s.tensor, []).append(s)
        self.provers: dict[Scheduled, Prover] = {leaf: Prover(self.forms, leaf.facts) for leaf in schedule.leaves}

    def unless_empty(self, problem: Problem, make: Make) -> Iterator[Violation]:
        """The violation at a solution of ``problem``, if it has any."""
        try:
            values = self.exact.sample(problem)
        except UndecidedError as error:
            yield _undecided(error)
            return
        if values is not None:
            yield make(values)

    def unless_covered(self, wanted: Problem, pieces: Sequence[Problem], make: Make) -> Iterator[Violation]:
        """The violation at a solution of ``wanted`` that no piece has, if there is any."""
        try:
            values = self.exact.uncovered(wanted, pieces)
        except UndecidedError as error:
            yield _undecided(error)
            return
        if values is not None:
            yield make(values)


def _undecided(error: UndecidedError) -> Violation:
    message = f"the schedule could not be proven legal and counts as illegal: {error}"
    return Violation(ViolationKind.UNKNOWN, message, "simpler index expressions or constant sizes may help")


def opposite(form: Form) -> Form:
    """The form that is >= 0 where ``form`` is < 0."""
    return form.scaled(-1).add(-1)
