"""Rule: iterations of a concurrent loop do not touch the same element of outer storage, if any writes it.

A VECTOR or THREAD loop may reduce into an element that does not depend on it: a horizontal reduction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polycomp.poly.exact import PairProblem, Values
from polycomp.poly.fast import equal_variables
from polycomp.poly.leaves import Scheduled, Storage, Touch, folds_of
from polycomp.poly.questions import Questions
from polycomp.poly.tree import Loop, LoopKind
from polycomp.poly.violations import Violation, ViolationKind, element_text, instance_text
from polycomp.te import Tensor

_Use = tuple[Scheduled, Touch]

_CALLED = {
    LoopKind.PARALLEL: "parallel", LoopKind.VECTOR: "vectorised", LoopKind.BLOCK: "block", LoopKind.THREAD: "thread",
}  # fmt: skip


def racing_iterations(questions: Questions) -> Iterator[Violation]:
    """Conflicts between iterations of each concurrent loop."""
    loops: dict[tuple[int, ...], Loop] = {}
    for leaf in questions.schedule.leaves:
        for depth, node in enumerate(leaf.path):
            if isinstance(node, Loop) and node.kind.is_concurrent:
                loops[leaf.positions[: depth + 1]] = node
    for place, loop in loops.items():
        for uses in _outer_uses(questions, place):
            for leaf, touch in uses:
                if touch is leaf.write:
                    yield from _conflicts(questions, loop, len(place) - 1, leaf, uses)


def _outer_uses(questions: Questions, place: tuple[int, ...]) -> list[list[_Use]]:
    """The accesses inside the loop at ``place`` to storage outside of it, by tensor and storage."""
    found: dict[tuple[Tensor, Storage], list[_Use]] = {}
    for leaf in questions.schedule.leaves:
        if leaf.positions[: len(place)] == place:
            for touch in (*leaf.reads, leaf.write):
                if touch.storage is not None and len(touch.storage) < len(place):
                    found.setdefault((touch.tensor, touch.storage), []).append((leaf, touch))
    return list(found.values())


def _conflicts(
    questions: Questions, loop: Loop, depth: int, leaf: Scheduled, uses: Sequence[_Use]
) -> Iterator[Violation]:
    """Conflicts of the write of ``leaf`` with other iterations' ``uses``; of two writes, the later one reports."""
    outer = frozenset(n.var for n in leaf.loops_outside(depth))
    later = uses[[u[0] for u in uses].index(leaf) :]
    for other, touch in uses:
        write = touch is other.write
        if write and all(other is not x for x, _ in later):
            continue
        if write and other is leaf and _is_horizontal(loop, leaf):
            continue
        pairs = zip(leaf.write.indices, touch.indices, strict=True)
        folds = _folds(leaf, leaf.write)
        rows = [pair for d, pair in enumerate(pairs) if not (folds and folds[d])]
        if loop.var in equal_variables(rows, outer, questions.provers[leaf]):
            continue
        yield from _race(questions, loop, depth, (leaf, leaf.write), (other, touch))
        if other is not leaf or not write:
            yield from _race(questions, loop, depth, (other, touch), (leaf, leaf.write))


def _folds(leaf: Scheduled, touch: Touch) -> tuple[int, ...]:
    assert touch.storage is not None
    return folds_of(leaf, touch.storage)


def _is_horizontal(loop: Loop, leaf: Scheduled) -> bool:
    """Whether a loop of lanes or threads reduces into an element that does not depend on it."""
    if not loop.kind.sums_across or not leaf.statement.reduce:
        return False
    return not any(loop.var in index.variables for index in leaf.write.indices)


def _race(questions: Questions, loop: Loop, depth: int, first: _Use, second: _Use) -> Iterator[Violation]:
    """A conflict in which the iteration of ``first`` is the smaller one."""
    (a, touch_a), (b, touch_b) = first, second
    pair = PairProblem(questions.schedule, a, b, depth, (touch_a, touch_b))
    pair.problem.add_same_position([pair.first(i) for i in touch_a.indices], touch_b.indices, _folds(b, touch_b))
    pair.precede(loop)

    def violation(values: Values) -> Violation:
        who, other = instance_text(b, values), instance_text(a, values, pair.names)
        kind = _CALLED[loop.kind]
        elements = dict.fromkeys((element_text(touch_b, values), element_text(touch_a, values, pair.names)))
        where = ", which is at the place of ".join(elements)
        message = (
            f"different iterations of the {kind} loop {loop.var.name} touch {where}: "
            f"{other} {_verb(first)} it and {who} {_verb(second)} it"
        )
        return Violation(ViolationKind.RACE, message, _remedy(a, b), other, who)

    yield from questions.unless_empty(pair.problem, violation)


def _verb(use: _Use) -> str:
    leaf, touch = use
    if touch is not leaf.write:
        return "reads"
    return "updates" if leaf.statement.reduce else "writes"


def _remedy(a: Scheduled, b: Scheduled) -> str:
    if a.statement.reduce and a.statement is b.statement:
        return "a loop of a reduction can be parallel only when its partial results are stored apart"
    return "it is legal when each iteration has a buffer of its own or computes different elements"
