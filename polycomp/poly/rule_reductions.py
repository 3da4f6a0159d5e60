"""Rules for reductions: initialised before all updates, each update once, and none from outside of the domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polycomp.poly.exact import PairProblem, Problem, Values, orders
from polycomp.poly.fast import equal_variables
from polycomp.poly.leaves import Scheduled, Storage, common_depth
from polycomp.poly.questions import Questions, opposite
from polycomp.poly.tree import Loop
from polycomp.poly.violations import Violation, ViolationKind, element_text, instance_text, sizes_text
from polycomp.te import Tensor


def broken_reductions(questions: Questions) -> Iterator[Violation]:
    """Violations among the initialisations and updates of each reduction in each storage."""
    for (_, storage), leaves in _groups(questions).items():
        updates = [w for w in leaves if w.statement.reduce]
        for update in updates:
            yield from _outside_domain(questions, update)
            for init in leaves:
                if not init.statement.reduce:
                    yield from _initialised_late(questions, init, update, storage)
        yield from repeated_instances(questions, updates, storage)


def _groups(questions: Questions) -> dict[tuple[Tensor, Storage], list[Scheduled]]:
    """All leaves that write a tensor in a storage."""
    found: dict[tuple[Tensor, Storage], list[Scheduled]] = {}
    for leaf in questions.schedule.leaves:
        assert leaf.write.storage is not None  # checked with the structure
        found.setdefault((leaf.statement.tensor, leaf.write.storage), []).append(leaf)
    return found


def _outside_domain(questions: Questions, leaf: Scheduled) -> Iterator[Violation]:
    """An element of the domain that is updated with a reduction iteration outside of it."""
    rank, count = leaf.rank, len(leaf.point)
    inside = (*leaf.domain_facts[:rank], *leaf.domain_facts[count : count + rank])
    wanted = (*leaf.domain_facts[rank:count], *leaf.domain_facts[count + rank :])
    prover = questions.provers[leaf].with_facts(inside)

    def violation(values: Values) -> Violation:
        who, element = instance_text(leaf, values), element_text(leaf.write, values)
        extents = ", ".join(f"{a.name} < {a.extent}" for a in leaf.statement.iters[rank:])
        message = f"{who} updates {element} outside of the reduction's domain ({extents})"
        return Violation(ViolationKind.OUTSIDE, message, "guard the split of the reduction loop", source=who)

    for side in wanted:
        if not prover.nonnegative(side):
            problem = Problem(questions.schedule)
            problem.add_leaf(leaf, {})
            problem.nonnegative += [*inside, opposite(side)]
            yield from questions.unless_empty(problem, violation)


def _initialised_late(
    questions: Questions, init: Scheduled, update: Scheduled, storage: Storage
) -> Iterator[Violation]:
    common = common_depth(init, update)
    if _initialised_first(questions, init, update, storage, common):
        return
    for depth, loop in orders(update, init, len(storage), common):
        pair = PairProblem(questions.schedule, update, init, depth)
        pair.equate(update.write.indices, init.write.indices)
        pair.precede(loop)
        yield from _late(questions, init, update, pair)


def _initialised_first(questions: Questions, init: Scheduled, update: Scheduled, storage: Storage, common: int) -> bool:
    """The usual shapes: the common loops have equal iterations, or ``init`` runs in a loop's first one only."""
    if init.positions[common] > update.positions[common]:
        return False
    prover = questions.provers[init]
    rows = list(zip(init.write.indices, update.write.indices, strict=True))
    outer = frozenset(loop.var for loop in init.loops_outside(len(storage)))
    equal = equal_variables(rows, outer, prover)
    loops = init.loops_outside(common)[len(outer) :]
    return all(loop.var in equal or prover.is_zero_loop(loop.var) for loop in loops)


def _late(questions: Questions, init: Scheduled, update: Scheduled, pair: PairProblem) -> Iterator[Violation]:
    def violation(values: Values) -> Violation:
        who, other = instance_text(init, values), instance_text(update, values, pair.names)
        message = f"{who} initialises {element_text(init.write, values)} after {other} has updated it"
        remedy = "it is legal when the initialisation is executed before all loops of the reduction"
        return Violation(ViolationKind.INIT, message, remedy, other, who)

    yield from questions.unless_empty(pair.problem, violation)


def repeated_instances(questions: Questions, leaves: Sequence[Scheduled], storage: Storage) -> Iterator[Violation]:
    """Instances that are executed twice in one execution of ``storage``."""
    for i, first in enumerate(leaves):
        if not _is_injective(questions, first, storage):
            for depth, loop in orders(first, first, len(storage), common_depth(first, first)):
                yield from _twice(questions, first, first, depth, loop)
        for second in leaves[i + 1 :]:
            if first.statement is second.statement and not _are_apart(questions, first, second):
                yield from _twice(questions, first, second, len(storage), None)


def _is_injective(questions: Questions, leaf: Scheduled, storage: Storage) -> bool:
    outer = frozenset(loop.var for loop in leaf.loops_outside(len(storage)))
    equal = equal_variables([(p, p) for p in leaf.point], outer, questions.provers[leaf])
    return all(loop.var in equal for loop in leaf.loops)


def _are_apart(questions: Questions, first: Scheduled, second: Scheduled) -> bool:
    """Whether intervals already show that two leaves never execute the same instance."""
    for a, b in zip(first.point, second.point, strict=True):
        (a_low, a_high), (b_low, b_high) = questions.provers[first].interval(a), questions.provers[second].interval(b)
        if a_high is not None and b_low is not None and a_high < b_low:
            return True
        if b_high is not None and a_low is not None and b_high < a_low:
            return True
    return False


def _twice(
    questions: Questions, first: Scheduled, second: Scheduled, depth: int, loop: Loop | None
) -> Iterator[Violation]:
    pair = PairProblem(questions.schedule, first, second, depth)
    pair.equate(first.point, second.point)
    pair.precede(loop)

    def violation(values: Values) -> Violation:
        who = instance_text(second, values)
        message = f"{who} is executed more than once{sizes_text(values, questions.schedule.kernel.sizes)}"
        remedy = "it is legal when no loop around it repeats it, and the remainders of splits are guarded"
        return Violation(ViolationKind.REPEATED, message, remedy, who, who)

    yield from questions.unless_empty(pair.problem, violation)
