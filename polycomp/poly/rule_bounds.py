"""Rule: every access stays inside its tensor or buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polycomp.expr import Expr
from polycomp.poly.exact import Problem, Values
from polycomp.poly.leaves import Scheduled, Touch, allocate_at
from polycomp.poly.linear import Form
from polycomp.poly.questions import Questions, opposite
from polycomp.poly.violations import Violation, ViolationKind, element_text, instance_text, sizes_text


def outside_accesses(questions: Questions) -> Iterator[Violation]:
    """Accesses outside of their buffers; what a select does not take is not an access."""
    for leaf in questions.schedule.leaves:
        for touch in (*leaf.reads, leaf.write):
            prover = questions.provers[leaf].with_facts(touch.facts)
            for side in _sides(questions, leaf, touch):
                if not prover.nonnegative(side):
                    yield from _outside(questions, leaf, touch, side)


def _sides(questions: Questions, leaf: Scheduled, touch: Touch) -> Iterator[Form]:
    """Forms that are >= 0 when the access is inside its buffer."""
    forms = questions.forms
    shape: Sequence[Expr | int] = touch.tensor.shape
    offsets = touch.indices
    if touch.storage:
        node = allocate_at(leaf, touch.storage)
        shape = node.shape
        offsets = tuple(i.plus(forms.of(o), -1) for i, o in zip(offsets, node.origin, strict=True))
    for offset, extent in zip(offsets, shape, strict=True):
        yield offset
        yield forms.of(extent).plus(offset, -1).add(-1)


def _outside(questions: Questions, leaf: Scheduled, touch: Touch, side: Form) -> Iterator[Violation]:
    problem = Problem(questions.schedule)
    problem.add_leaf(leaf, {})
    problem.add_touch(touch, {})
    problem.nonnegative.append(opposite(side))

    def violation(values: Values) -> Violation:
        who, element = instance_text(leaf, values), element_text(touch, values)
        verb = "writes" if touch is leaf.write else "reads"
        what, remedy = _buffer(leaf, touch)
        message = f"{who} {verb} {element}, outside of {what}{sizes_text(values, questions.schedule.kernel.sizes)}"
        return Violation(ViolationKind.BOUNDS, message, remedy, source=who)

    yield from questions.unless_empty(problem, violation)


def _buffer(leaf: Scheduled, touch: Touch) -> tuple[str, str]:
    """The buffer that an access misses, and what helps."""
    if not touch.storage:
        shape = ", ".join(str(d) for d in touch.tensor.shape)
        return f"its shape [{shape}]", "guard the access, or the split of the loop that leads there"
    extents = ", ".join(str(d) for d in allocate_at(leaf, touch.storage).shape)
    return f"its buffer of shape [{extents}]", "enlarge the buffer, or compute and read less in it"
