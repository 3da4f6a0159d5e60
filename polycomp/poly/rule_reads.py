"""Rule: every read sees the final value. All instances that define the element come before, on the same storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polycomp.expr import Var
from polycomp.poly.exact import Problem, UndecidedError, Values, orders, primed
from polycomp.poly.fast import Covering
from polycomp.poly.kernel import Statement
from polycomp.poly.leaves import Scheduled, Storage, Touch, common_depth
from polycomp.poly.linear import Form
from polycomp.poly.questions import Questions
from polycomp.poly.violations import Violation, ViolationKind, element_text, evaluate, instance_text, point_text


def premature_reads(questions: Questions) -> Iterator[Violation]:
    """Reads of elements that are not final, or never computed."""
    for leaf in questions.schedule.leaves:
        for touch in leaf.reads:
            for statement in questions.statements.get(touch.tensor, ()):
                yield from Read(questions, leaf, touch, statement).violations()


class Read:
    """One read, and one of the statements that define the element."""

    def __init__(self, questions: Questions, leaf: Scheduled, touch: Touch, statement: Statement) -> None:
        assert touch.storage is not None  # checked with the structure
        self.questions, self.schedule = questions, questions.schedule
        self.leaf, self.touch, self.statement = leaf, touch, statement
        self.storage: Storage = touch.storage
        # An instance outside of its domain computes padding, which may be meaningless unless it is used as an index.
        self.facts = () if touch.access.strict else leaf.domain_facts
        self.extents = self._reduction_variables()
        self.targets = (*touch.indices, *(Form({v: 1}) for v in self.extents))
        touching = self.schedule.touching(touch.tensor, self.storage)
        self.writers = [w for w in touching if w.statement is statement]

    def _reduction_variables(self) -> dict[Var, Form]:
        """A variable per reduction iterator of the statement: all its values must have been executed."""
        found: dict[Var, Form] = {}
        for axis in self.statement.iters[self.touch.tensor.rank :]:
            extent = self.questions.forms.of(axis.extent)
            found[self.schedule.new_variable(f"{self.statement.name}.{axis.name}^", extent)] = extent
        return found

    def violations(self) -> Iterator[Violation]:
        if self._proven():
            return
        wanted = self.problem()
        pieces = [piece for writer in self.writers for piece in self._provided(writer, wanted)]
        yield from self.questions.unless_covered(wanted, pieces, self._violation)

    def problem(self) -> Problem:
        """All executions of the read, each with every value of the reduction's iterators."""
        wanted = Problem(self.schedule)
        wanted.add_leaf(self.leaf, {})
        wanted.add_touch(self.touch, {})
        wanted.nonnegative += self.facts
        for var, extent in self.extents.items():
            wanted.add_box(var, extent)
        return wanted

    def _proven(self) -> bool:
        """Whether one writer before the read, in the same iteration of all common loops, computes the element."""
        upper = [e.plus(Form({v: 1}), -1).add(-1) for v, e in self.extents.items() if not e.is_constant]
        prover = self.questions.provers[self.leaf].with_facts((*self.touch.facts, *self.facts, *upper))
        for writer in self.writers:
            depth = common_depth(self.leaf, writer)
            if writer is self.leaf or writer.positions[depth] > self.leaf.positions[depth]:
                continue
            shared = frozenset(loop.var for loop in self.leaf.loops_outside(depth))
            if Covering(self.schedule, writer, shared).reaches(self.targets, prover):
                return True
        return False

    def _provided(self, writer: Scheduled, wanted: Problem) -> Iterator[Problem]:
        """One problem per way in which ``writer`` comes before the read in the same execution of the storage."""
        for depth, loop in orders(writer, self.leaf, len(self.storage), common_depth(writer, self.leaf)):
            shared = frozenset(x.var for x in self.leaf.loops_outside(depth))
            names = primed(self.schedule, writer, shared)
            piece = Problem(self.schedule, wanted.dims)
            piece.add_leaf(writer, names)
            piece.add_equal((self.questions.forms.renamed(p, names) for p in writer.point), self.targets)
            piece.add_before(loop, names)
            yield piece

    def _violation(self, values: Values) -> Violation:
        who, element = instance_text(self.leaf, values), element_text(self.touch, values)
        point = [evaluate(t, values) for t in self.targets]
        writer = point_text(self.statement, point)
        if self._is_executed(point, values):
            message = f"{who} reads {element} before {element} is {self._verb()} by {writer}"
            remedy = f"it is legal when {self.statement.name} is executed first, in front of the loops it belongs to"
            return Violation(ViolationKind.ORDER, message, remedy, writer, who)
        where = " in the same execution of its buffer" if self.storage else ""
        message = f"{who} reads {element}, but {writer} is never executed{where}"
        return Violation(
            ViolationKind.MISSING, message, f"compute all of {self.statement.name} that is read", writer, who
        )

    def _verb(self) -> str:
        if self.statement.reduce:
            return "updated"
        return "initialised" if len(self.questions.statements[self.touch.tensor]) > 1 else "written"

    def _is_executed(self, point: Sequence[int], values: Values) -> bool:
        """Whether the tree executes the statement at ``point`` at all, at the sampled iteration of the outer loops."""
        return any(self._executes(writer, point, values) for writer in self.writers)

    def _executes(self, writer: Scheduled, point: Sequence[int], values: Values) -> bool:
        problem = Problem(self.schedule)
        problem.add_leaf(writer, {})
        problem.zero += [p.add(-x) for p, x in zip(writer.point, point, strict=True)]
        outer = (loop.var for loop in self.leaf.loops_outside(len(self.storage)))
        known = (*outer, *(s for s in self.schedule.kernel.sizes if s in values))
        problem.zero += [Form({v: 1}, -values[v]) for v in known]
        try:
            return self.questions.exact.sample(problem) is not None
        except UndecidedError:  # only the wording depends on it: the read is premature in any case
            return False
