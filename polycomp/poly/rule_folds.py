"""Rule: a folded buffer holds an element until it is read; no other element is written to its position before that.

An element's position is its index modulo the folds of its buffer. Whenever another element is written to the position
of one that is read later, all that defines the read one must be executed in between.
"""

from __future__ import annotations

from collections.abc import Iterator

from polycomp.expr import Var
from polycomp.poly.exact import Problem, Renaming, Values, orders, primed
from polycomp.poly.kernel import Statement
from polycomp.poly.leaves import Scheduled, Touch, common_depth, folds_of
from polycomp.poly.linear import Form
from polycomp.poly.questions import Questions
from polycomp.poly.rule_reads import Read
from polycomp.poly.tree import Loop
from polycomp.poly.violations import Violation, ViolationKind, element_text, instance_text


def overwritten_elements(questions: Questions) -> Iterator[Violation]:
    """Reads of elements whose position has been given to another element."""
    for leaf in questions.schedule.leaves:
        for touch in leaf.reads:
            if touch.storage and any(folds_of(leaf, touch.storage)):
                for writer in questions.schedule.touching(touch.tensor, touch.storage):
                    yield from _Overwriting(questions, leaf, touch, writer).violations()


class _Overwriting:
    """A read, and a leaf that writes to its buffer."""

    def __init__(self, questions: Questions, leaf: Scheduled, touch: Touch, writer: Scheduled) -> None:
        assert touch.storage is not None
        self.questions, self.schedule = questions, questions.schedule
        self.leaf, self.touch, self.writer = leaf, touch, writer
        self.base = len(touch.storage)
        self.folds = folds_of(leaf, touch.storage)

    def violations(self) -> Iterator[Violation]:
        for depth, loop in orders(self.writer, self.leaf, self.base, common_depth(self.writer, self.leaf)):
            names = self._names(self.writer, depth, "'")
            for later in (False, True):
                for d in (d for d, fold in enumerate(self.folds) if fold):
                    yield from self._overwritten(names, loop, d, later)

    def _names(self, leaf: Scheduled, depth: int, prime: str) -> Renaming:
        """Names for an instance of ``leaf`` whose loops above ``depth`` have the iterations of the read."""
        shared = frozenset(loop.var for loop in self.leaf.loops_outside(depth))
        return primed(self.schedule, leaf, shared, (), prime)

    def _overwritten(self, names: Renaming, loop: Loop | None, dimension: int, later: bool) -> Iterator[Violation]:
        """Reads after a write, named ``names``, of an element that lies before (or ``later``) along ``dimension``."""
        for statement in self.questions.statements[self.touch.tensor]:
            read = Read(self.questions, self.leaf, self.touch, statement)
            wanted = read.problem()
            wanted.add_leaf(self.writer, names)
            wanted.add_before(loop, names)
            written = [self.questions.forms.renamed(i, names) for i in self.writer.write.indices]
            turns = wanted.add_same_position(written, self.touch.indices, self.folds)
            turn = next(t for t in turns if t.name == f"turn.{dimension}^")
            wanted.nonnegative.append(Form({turn: 1 if later else -1}, -1))
            pieces = list(self._between(read, wanted, statement, names))
            yield from self.questions.unless_covered(wanted, pieces, lambda values: self._violation(values, names))

    def _between(self, read: Read, wanted: Problem, statement: Statement, names: Renaming) -> Iterator[Problem]:
        """One problem per way in which the element read is computed between the write and the read."""
        for maker in read.writers:
            for depth, loop in orders(maker, self.leaf, self.base, common_depth(maker, self.leaf)):
                own = self._names(maker, depth, "''")
                for after, step in orders(self.writer, maker, self.base, common_depth(self.writer, maker)):
                    piece = Problem(self.schedule, wanted.dims)
                    piece.add_leaf(maker, own)
                    piece.add_equal((self.questions.forms.renamed(p, own) for p in maker.point), read.targets)
                    piece.add_before(loop, own)
                    self._add_follows(piece, maker, own, names, after, step)
                    yield piece

    def _add_follows(
        self, piece: Problem, maker: Scheduled, own: Renaming, names: Renaming, depth: int, step: Loop | None
    ) -> None:
        """Require that the write precedes an instance of ``maker``: equal loops above ``depth``, then ``step``."""
        pairs = [(names.get(x.var, x.var), own.get(x.var, x.var)) for x in maker.loops_outside(depth)]
        piece.add_equal((_variable(a) for a, _ in pairs), (_variable(b) for _, b in pairs))
        if step is not None:
            first, second = names.get(step.var, step.var), own.get(step.var, step.var)
            piece.nonnegative.append(_variable(second).plus(_variable(first), -1).add(-1))

    def _violation(self, values: Values, names: Renaming) -> Violation:
        who, other = instance_text(self.leaf, values), instance_text(self.writer, values, names)
        element, intruder = element_text(self.touch, values), element_text(self.writer.write, values, names)
        kept = " and ".join(f"dimension {d} is kept modulo {fold}" for d, fold in enumerate(self.folds) if fold)
        message = f"{who} reads {element} after {other} has written {intruder} to its place ({kept})"
        remedy = f"it is legal when more of {self.touch.tensor.name} is kept, or what is kept is read sooner"
        return Violation(ViolationKind.OVERWRITTEN, message, remedy, other, who)


def _variable(var: Var) -> Form:
    return Form({var: 1})
