"""Rule: outputs are complete, each of their instances executed exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polycomp.poly.exact import Problem, Values
from polycomp.poly.fast import Covering
from polycomp.poly.kernel import Statement
from polycomp.poly.leaves import Scheduled
from polycomp.poly.linear import Form, Prover
from polycomp.poly.questions import Questions
from polycomp.poly.rule_reductions import repeated_instances
from polycomp.poly.violations import Violation, ViolationKind, point_text, sizes_text


def incomplete_outputs(questions: Questions) -> Iterator[Violation]:
    """Instances of outputs that are never executed, or more than once (updates are another rule's)."""
    for tensor in questions.schedule.kernel.outputs:
        writers = questions.schedule.touching(tensor, ())
        for statement in questions.statements.get(tensor, ()):
            own = [w for w in writers if w.statement is statement]
            yield from _missing(questions, statement, own)
            if not statement.reduce:
                yield from repeated_instances(questions, own, ())


def _missing(questions: Questions, statement: Statement, writers: Sequence[Scheduled]) -> Iterator[Violation]:
    schedule = questions.schedule
    extents = [questions.forms.of(a.extent) for a in statement.iters]
    variables = [
        schedule.new_variable(f"{statement.name}.{a.name}^", e) for a, e in zip(statement.iters, extents, strict=True)
    ]
    targets = [Form({v: 1}) for v in variables]
    prover = Prover(questions.forms, [e.plus(t, -1).add(-1) for e, t in zip(extents, targets, strict=True)])
    if any(Covering(schedule, w, frozenset()).reaches(targets, prover) for w in writers):
        return
    wanted = Problem(schedule)
    for var, extent in zip(variables, extents, strict=True):
        wanted.add_box(var, extent)

    def violation(values: Values) -> Violation:
        who = point_text(statement, [values[v] for v in variables])
        sizes = sizes_text(values, schedule.kernel.sizes)
        message = f"the output {statement.tensor.name} is not complete: {who} is never executed{sizes}"
        return Violation(ViolationKind.MISSING, message, source=who)

    yield from questions.unless_covered(wanted, [_executed(questions, w, wanted, targets) for w in writers], violation)


def _executed(questions: Questions, writer: Scheduled, wanted: Problem, targets: Sequence[Form]) -> Problem:
    piece = Problem(questions.schedule, wanted.dims)
    piece.add_leaf(writer, {})
    piece.add_equal(writer.point, targets)
    return piece
