"""Whether a schedule tree computes what a kernel's tensors say.

Legality is value-based: every element has one defining instance, or an initialisation and a set of updates, so a tree
is right when every read sees the final value, reductions are started once and updated once per iteration, all accesses
stay inside their buffers, outputs are complete, and iterations executed at the same time do not touch the same element.
Each question is first put to the structural tier (:mod:`polycomp.poly.fast`) and to isl only when that says "maybe".

An instance outside of its statement's domain computes padding. Nothing inside the domain reads it, so it may read
undefined values (unless they serve as indices or integer divisors), but never outside of a buffer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from polycomp.expr import Expr, Var
from polycomp.poly.exact import Exact, PairProblem, Problem, UndecidedError, Values, orders
from polycomp.poly.fast import Covering, equal_variables
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.leaves import Schedule, Scheduled, Storage, Touch, allocate_at, common_depth
from polycomp.poly.linear import Form, Prover
from polycomp.poly.normal import unfused
from polycomp.poly.structure import structure_violation
from polycomp.poly.tree import Loop, LoopKind
from polycomp.poly.violations import (
    Verdict,
    Violation,
    ViolationKind,
    element_text,
    evaluate,
    explain,
    instance_text,
    sizes_text,
)
from polycomp.te import Tensor

__all__ = ["DEFAULT_QUOTA", "Verdict", "Violation", "ViolationKind", "explain", "verify_kernel"]

DEFAULT_QUOTA = 5_000_000
"""How many isl operations one verification may take, about a second at most."""


def verify_kernel(kernel: Kernel, quota: int = DEFAULT_QUOTA) -> Verdict:
    """Whether the kernel's tree is legal; the first violation found otherwise.

    What isl cannot decide within ``quota`` operations is a violation of kind UNKNOWN. Storage scopes and costs are
    not judged.
    """
    violation = structure_violation(kernel)
    if violation is not None:
        return Verdict(violation)
    schedule = Schedule(kernel, unfused(kernel.tree, kernel.ranges))
    verifier = _Verifier(schedule, quota)
    return Verdict(next(verifier.violations(), None), verifier.exact.asked)


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """All leaves that write one tensor in one storage."""

    tensor: Tensor
    storage: Storage
    writers: tuple[Scheduled, ...]

    def of(self, statement: Statement) -> list[Scheduled]:
        return [w for w in self.writers if w.statement is statement]


class _Verifier:
    def __init__(self, schedule: Schedule, quota: int) -> None:
        self.schedule, self.forms = schedule, schedule.forms
        self.exact = Exact(schedule, quota)
        self.statements: dict[Tensor, list[Statement]] = {}
        for s in schedule.kernel.statements.values():
            self.statements.setdefault(s.tensor, []).append(s)
        self.provers: dict[Scheduled, Prover] = {leaf: Prover(self.forms, leaf.facts) for leaf in schedule.leaves}

    def violations(self) -> Iterator[Violation]:
        """All violations, of the cheapest rules first."""
        for rule in (self.bounds, self.reads, self.updates, self.outputs, self.races):
            yield from rule()

    # Accesses inside their buffers

    def bounds(self) -> Iterator[Violation]:
        for leaf in self.schedule.leaves:
            for touch in (*leaf.reads, leaf.write):
                yield from self._outside_of(leaf, touch)

    def _outside_of(self, leaf: Scheduled, touch: Touch) -> Iterator[Violation]:
        prover = self.provers[leaf].with_facts(touch.facts)
        for side in self._sides(leaf, touch):
            if prover.nonnegative(side):
                continue
            problem = Problem(self.schedule)
            problem.add_leaf(leaf, {})
            problem.add_touch(touch, {})
            problem.nonnegative.append(side.scaled(-1).add(-1))
            yield from self._report(problem, lambda values: self._bounds_violation(leaf, touch, values))

    def _sides(self, leaf: Scheduled, touch: Touch) -> Iterator[Form]:
        """Forms that are >= 0 when the access is inside its buffer."""
        assert touch.storage is not None
        shape: Sequence[Expr | int] = touch.tensor.shape
        offsets = touch.indices
        if touch.storage:
            node = allocate_at(leaf, touch.storage)
            shape = node.shape
            offsets = tuple(i.plus(self.forms.of(o), -1) for i, o in zip(offsets, node.origin, strict=True))
        for offset, extent in zip(offsets, shape, strict=True):
            yield offset
            yield self.forms.of(extent).plus(offset, -1).add(-1)

    def _bounds_violation(self, leaf: Scheduled, touch: Touch, values: Values) -> Violation:
        who, element = instance_text(leaf, values), element_text(touch, values)
        verb = "writes" if touch is leaf.write else "reads"
        what, remedy = _buffer_text(leaf, touch, values)
        return Violation(ViolationKind.BOUNDS, f"{who} {verb} {element}, outside of {what}", remedy, source=who)

    # Reads see final values

    def reads(self) -> Iterator[Violation]:
        for leaf in self.schedule.leaves:
            for touch in leaf.reads:
                for statement in self.statements.get(touch.tensor, ()):
                    yield from self._unprovided(leaf, touch, statement)

    def _unprovided(self, leaf: Scheduled, touch: Touch, statement: Statement) -> Iterator[Violation]:
        assert touch.storage is not None
        writers = [w for w in self.schedule.touching(touch.tensor, touch.storage) if w.statement is statement]
        facts = () if touch.access.strict else leaf.domain_facts
        if self._read_proven(leaf, touch, statement, writers, facts):
            return
        wanted, targets = self._wanted(leaf, touch, statement, facts)
        pieces = [p for w in writers for p in self._provided(leaf, touch.storage, w, wanted, targets)]
        yield from self._report_uncovered(
            wanted, pieces, lambda values: self._read_violation(leaf, touch, statement, writers, values)
        )

    def _targets(self, touch: Touch, statement: Statement) -> tuple[tuple[Form, ...], dict[Var, Form]]:
        """The point that defines the element read, and the extents of the reduction variables in it."""
        reduced = statement.iters[len(statement.tensor.axes) :]
        extents: dict[Var, Form] = {}
        for axis in reduced:
            var = Var(f"{axis.name}^")
            extents[var] = self.forms.of(axis.extent)
            high = Prover(self.forms, ()).interval(extents[var])[1]
            self.forms.ranges[var] = (0, None if high is None else high - 1)
        return (*touch.indices, *(Form({v: 1}) for v in extents)), extents

    def _read_proven(
        self, leaf: Scheduled, touch: Touch, statement: Statement, writers: Sequence[Scheduled], facts: tuple[Form, ...]
    ) -> bool:
        targets, extents = self._targets(touch, statement)
        upper = [e.plus(Form({v: 1}), -1).add(-1) for v, e in extents.items() if not e.is_constant]
        prover = self.provers[leaf].with_facts((*touch.facts, *facts, *upper))
        for writer in writers:
            depth = common_depth(leaf, writer)
            if writer is leaf or writer.positions[depth] > leaf.positions[depth]:
                continue
            shared = frozenset(loop.var for loop in leaf.loops_outside(depth))
            if Covering(self.schedule, writer, shared).reaches(targets, prover):
                return True
        return False

    def _wanted(
        self, leaf: Scheduled, touch: Touch, statement: Statement, facts: tuple[Form, ...]
    ) -> tuple[Problem, tuple[Form, ...]]:
        targets, extents = self._targets(touch, statement)
        problem = Problem(self.schedule)
        problem.add_leaf(leaf, {})
        problem.add_touch(touch, {})
        problem.nonnegative += facts
        for var, extent in extents.items():
            problem.add_box(var, extent)
        return problem, targets

    def _provided(
        self, leaf: Scheduled, storage: Storage, writer: Scheduled, wanted: Problem, targets: tuple[Form, ...]
    ) -> Iterator[Problem]:
        """One problem per way in which ``writer`` comes before ``leaf`` in the same execution of the storage."""
        for depth, loop in orders(writer, leaf, len(storage), common_depth(writer, leaf)):
            pair = PairProblem(self.schedule, writer, leaf, depth)
            piece = Problem(self.schedule, wanted.dims)
            piece.add_leaf(writer, pair.names)
            pair.problem = piece
            pair.equate(writer.point, targets)
            pair.precede(loop)
            yield piece

    def _read_violation(
        self, leaf: Scheduled, touch: Touch, statement: Statement, writers: Sequence[Scheduled], values: Values
    ) -> Violation:
        who, element = instance_text(leaf, values), element_text(touch, values)
        targets, _ = self._targets(touch, statement)
        point = [evaluate(t, values) for t in targets]
        iters = ", ".join(f"{a.name}={x}" for a, x in zip(statement.iters, point, strict=True))
        writer = f"{statement.name}[{iters}]"
        assert touch.storage is not None
        verb = {"": "written", "update": "updated", "init": "initialised"}
        done = verb.get(statement.name.rpartition(".")[2], "written") if len(self.statements[touch.tensor]) > 1 else "written"
        if any(self._executes(w, leaf, len(touch.storage), point, values) for w in writers):
            message = f"{who} reads {element} before {element} is {done} by {writer}"
            remedy = f"it is legal when {statement.name} is executed first, for instance computed at an outer loop"
            return Violation(ViolationKind.ORDER, message, remedy, writer, who)
        where = " in the same execution of its buffer" if touch.storage else ""
        message = f"{who} reads {element}, but {writer} is never executed{where}"
        return Violation(ViolationKind.MISSING, message, f"compute all of {statement.name} that is read", writer, who)

    def _executes(self, writer: Scheduled, leaf: Scheduled, depth: int, point: Sequence[int], values: Values) -> bool:
        """Whether ``writer`` has an instance at ``point`` for the loops above ``depth`` as in ``values``."""
        problem = Problem(self.schedule)
        problem.add_leaf(writer, {})
        problem.zero += [p.add(-x) for p, x in zip(writer.point, point, strict=True)]
        problem.zero += [Form({loop.var: 1}, -values[loop.var]) for loop in leaf.loops_outside(depth)]
        problem.zero += [Form({s: 1}, -values[s]) for s in self.schedule.kernel.sizes if s in values]
        return self.exact.sample(problem) is not None

    # Reductions

    def _groups(self) -> list[_Group]:
        found: dict[tuple[Tensor, Storage], list[Scheduled]] = {}
        for leaf in self.schedule.leaves:
            assert leaf.write.storage is not None
            found.setdefault((leaf.statement.tensor, leaf.write.storage), []).append(leaf)
        return [_Group(tensor, storage, tuple(leaves)) for (tensor, storage), leaves in found.items()]

    def updates(self) -> Iterator[Violation]:
        for group in self._groups():
            changed = [w for w in group.writers if w.statement.reduce]
            starts = [w for w in group.writers if not w.statement.reduce]
            for update in changed:
                yield from self._outside_domain(update)
                for init in starts:
                    yield from self._init_after(init, update, group.storage)
            yield from self._repeated(changed, group.storage)

    def _outside_domain(self, leaf: Scheduled) -> Iterator[Violation]:
        """An element of the domain that is updated with a reduction iteration outside of it."""
        rank, count = leaf.rank, len(leaf.point)
        inside = (*leaf.domain_facts[:rank], *leaf.domain_facts[count : count + rank])
        wanted = (*leaf.domain_facts[rank:count], *leaf.domain_facts[count + rank :])
        prover = self.provers[leaf].with_facts(inside)
        for side in wanted:
            if prover.nonnegative(side):
                continue
            problem = Problem(self.schedule)
            problem.add_leaf(leaf, {})
            problem.nonnegative += [*inside, side.scaled(-1).add(-1)]
            yield from self._report(problem, lambda values: self._outside_violation(leaf, values))

    def _outside_violation(self, leaf: Scheduled, values: Values) -> Violation:
        who = instance_text(leaf, values)
        extents = ", ".join(f"{a.name} < {a.extent}" for a in leaf.statement.iters[leaf.rank :])
        message = f"{who} updates {element_text(leaf.write, values)} outside of the reduction's domain ({extents})"
        return Violation(ViolationKind.OUTSIDE, message, "guard the split of the reduction loop", source=who)

    def _init_after(self, init: Scheduled, update: Scheduled, storage: Storage) -> Iterator[Violation]:
        common = common_depth(init, update)
        rows = list(zip(init.write.indices, update.write.indices, strict=True))
        if self._init_first(init, update, storage, common, rows):
            return
        for depth, loop in orders(update, init, len(storage), common):
            pair = PairProblem(self.schedule, update, init, depth)
            pair.equate(update.write.indices, init.write.indices)
            pair.precede(loop)
            yield from self._report(pair.problem, lambda values, pair=pair: self._init_violation(init, update, pair, values))  # type: ignore[misc]

    def _init_first(
        self, init: Scheduled, update: Scheduled, storage: Storage, common: int, rows: list[tuple[Form, Form]]
    ) -> bool:
        """The usual shapes: the common loops have equal iterations, or ``init`` runs in a loop's first one only."""
        if init.positions[common] > update.positions[common]:
            return False
        prover = self.provers[init]
        outer = frozenset(loop.var for loop in init.loops_outside(len(storage)))
        equal = equal_variables(rows, outer, prover)
        loops = init.loops_outside(common)[len(outer) :]
        return all(loop.var in equal or prover.nonnegative(Form({loop.var: -1})) for loop in loops)

    def _init_violation(self, init: Scheduled, update: Scheduled, pair: PairProblem, values: Values) -> Violation:
        who, other = instance_text(init, values), instance_text(update, values, pair.names)
        element = element_text(init.write, values)
        message = f"{who} initialises {element} after {other} has updated it"
        remedy = "it is legal when the initialisation is executed before all loops of the reduction"
        return Violation(ViolationKind.INIT, message, remedy, other, who)

    def _repeated(self, leaves: Sequence[Scheduled], storage: Storage) -> Iterator[Violation]:
        """An instance that is executed twice in one execution of ``storage``."""
        for i, first in enumerate(leaves):
            if not self._injective(first, storage):
                for depth, loop in orders(first, first, len(storage), common_depth(first, first)):
                    yield from self._same_instance(first, first, depth, loop)
            for second in leaves[i + 1 :]:
                if first.statement is second.statement and not self._apart(first, second):
                    yield from self._same_instance(first, second, len(storage), None)

    def _injective(self, leaf: Scheduled, storage: Storage) -> bool:
        outer = frozenset(loop.var for loop in leaf.loops_outside(len(storage)))
        equal = equal_variables([(p, p) for p in leaf.point], outer, self.provers[leaf])
        return all(loop.var in equal for loop in leaf.loops)

    def _apart(self, first: Scheduled, second: Scheduled) -> bool:
        """Whether intervals already show that two leaves never execute the same instance."""
        for a, b in zip(first.point, second.point, strict=True):
            (a_low, a_high), (b_low, b_high) = self.provers[first].interval(a), self.provers[second].interval(b)
            if (a_high is not None and b_low is not None and a_high < b_low) or (
                b_high is not None and a_low is not None and b_high < a_low
            ):
                return True
        return False

    def _same_instance(self, first: Scheduled, second: Scheduled, depth: int, loop: Loop | None) -> Iterator[Violation]:
        pair = PairProblem(self.schedule, first, second, depth)
        pair.equate(first.point, second.point)
        pair.precede(loop)

        def violation(values: Values) -> Violation:
            who = instance_text(second, values)
            sizes = sizes_text(values, self.schedule.kernel.sizes)
            message = f"{who} is executed more than once{sizes}"
            remedy = "it is legal when no loop around it repeats it and split loops with a remainder are guarded"
            return Violation(ViolationKind.REPEATED, message, remedy, who, who)

        yield from self._report(pair.problem, violation)

    # Outputs are complete

    def outputs(self) -> Iterator[Violation]:
        for tensor in self.schedule.kernel.outputs:
            writers = self.schedule.touching(tensor, ())
            for statement in self.statements.get(tensor, ()):
                own = [w for w in writers if w.statement is statement]
                yield from self._incomplete(statement, own)
                if not statement.reduce:
                    yield from self._repeated(own, ())

    def _incomplete(self, statement: Statement, writers: Sequence[Scheduled]) -> Iterator[Violation]:
        elements = {Var(f"{a.name}^"): self.forms.of(a.extent) for a in statement.iters}
        for var, extent in elements.items():
            high = Prover(self.forms, ()).interval(extent)[1]
            self.forms.ranges[var] = (0, None if high is None else high - 1)
        targets = tuple(Form({v: 1}) for v in elements)
        prover = Prover(self.forms, [e.plus(Form({v: 1}), -1).add(-1) for v, e in elements.items()])
        if any(Covering(self.schedule, w, frozenset()).reaches(targets, prover) for w in writers):
            return
        wanted = Problem(self.schedule)
        for var, extent in elements.items():
            wanted.add_box(var, extent)
        pieces = []
        for writer in writers:
            piece = Problem(self.schedule, wanted.dims)
            piece.add_leaf(writer, {})
            piece.add_equal(writer.point, targets)
            pieces.append(piece)
        yield from self._report_uncovered(wanted, pieces, lambda values: self._incomplete_violation(statement, values))

    def _incomplete_violation(self, statement: Statement, values: Values) -> Violation:
        iters = ", ".join(f"{a.name}={values[Var(f'{a.name}^')]}" for a in statement.iters)
        who = f"{statement.name}[{iters}]"
        sizes = sizes_text(values, self.schedule.kernel.sizes)
        message = f"the output {statement.tensor.name} is not complete: {who} is never executed{sizes}"
        return Violation(ViolationKind.MISSING, message, source=who)

    # Loops executed in parallel

    def races(self) -> Iterator[Violation]:
        loops = {leaf.positions[: d + 1]: n for leaf in self.schedule.leaves for d, n in enumerate(leaf.path) if _concurrent(n)}
        for place, node in loops.items():
            assert isinstance(node, Loop)
            yield from self._races_of(node, place)

    def _races_of(self, loop: Loop, place: tuple[int, ...]) -> Iterator[Violation]:
        inside = [leaf for leaf in self.schedule.leaves if leaf.positions[: len(place)] == place]
        touches: dict[tuple[Tensor, Storage], list[tuple[Scheduled, Touch]]] = {}
        for leaf in inside:
            for touch in (*leaf.reads, leaf.write):
                if touch.storage is not None and len(touch.storage) < len(place):
                    touches.setdefault((touch.tensor, touch.storage), []).append((leaf, touch))
        for group in touches.values():
            for leaf, touch in group:
                if touch is leaf.write:
                    yield from self._races_with(loop, len(place) - 1, leaf, group)

    def _races_with(
        self, loop: Loop, depth: int, leaf: Scheduled, group: Sequence[tuple[Scheduled, Touch]]
    ) -> Iterator[Violation]:
        """Conflicts of the write of ``leaf`` with other iterations' accesses in ``group``."""
        outer = frozenset(n.var for n in leaf.loops_outside(depth))
        seen_own = False
        for other, touch in group:
            seen_own = seen_own or other is leaf
            write = touch is other.write
            if (write and not seen_own) or (other is leaf and write and _is_horizontal(loop, leaf)):
                continue
            rows = list(zip(leaf.write.indices, touch.indices, strict=True))
            if loop.var not in equal_variables(rows, outer, self.provers[leaf].with_facts(touch.facts)):
                yield from self._race(loop, depth, (leaf, leaf.write), (other, touch))
                if other is not leaf or not write:
                    yield from self._race(loop, depth, (other, touch), (leaf, leaf.write))

    def _race(
        self, loop: Loop, depth: int, first: tuple[Scheduled, Touch], second: tuple[Scheduled, Touch]
    ) -> Iterator[Violation]:
        (a, touch_a), (b, touch_b) = first, second
        pair = PairProblem(self.schedule, a, b, depth, (touch_a, touch_b))
        pair.equate(touch_a.indices, touch_b.indices)
        pair.precede(loop)

        def violation(values: Values) -> Violation:
            who, other = instance_text(b, values), instance_text(a, values, pair.names)
            element = element_text(touch_b, values)
            verbs = tuple("writes" if t is x.write else "reads" for x, t in first_second)
            kind = "parallel" if loop.kind is LoopKind.PARALLEL else "vectorised"
            message = (
                f"different iterations of the {kind} loop {loop.var.name} touch {element}: "
                f"{other} {verbs[0]} it and {who} {verbs[1]} it"
            )
            return Violation(ViolationKind.RACE, message, _race_remedy(a, b), other, who)

        first_second = (first, second)
        yield from self._report(pair.problem, violation)

    # Asking isl

    def _report(self, problem: Problem, violation: object) -> Iterator[Violation]:
        try:
            values = self.exact.sample(problem)
        except UndecidedError as error:
            yield _undecided(error)
            return
        if values is not None:
            yield violation(values)  # type: ignore[operator]

    def _report_uncovered(self, wanted: Problem, pieces: Sequence[Problem], violation: object) -> Iterator[Violation]:
        try:
            values = self.exact.uncovered(wanted, pieces)
            if values is not None:
                yield violation(values)  # type: ignore[operator]
        except UndecidedError as error:
            yield _undecided(error)


def _concurrent(node: object) -> bool:
    return isinstance(node, Loop) and node.kind in (LoopKind.PARALLEL, LoopKind.VECTOR)


def _is_horizontal(loop: Loop, leaf: Scheduled) -> bool:
    """Whether a vector loop reduces into an element that does not depend on it."""
    if loop.kind is not LoopKind.VECTOR or not leaf.statement.reduce:
        return False
    return not any(loop.var in index.variables for index in leaf.write.indices)


def _race_remedy(a: Scheduled, b: Scheduled) -> str:
    if a.statement.reduce and a.statement is b.statement:
        return "a loop of a reduction can be parallel only when its partial results are stored apart"
    return "it is legal when each iteration has a buffer of its own or computes different elements"


def _buffer_text(leaf: Scheduled, touch: Touch, values: Values) -> tuple[str, str]:
    """The buffer that an access misses, and what helps."""
    shape = ", ".join(str(d) for d in touch.tensor.shape)
    if not touch.storage:
        return f"its shape [{shape}]", "guard the access, or the split of the loop that leads there"
    node = allocate_at(leaf, touch.storage)
    extents = ", ".join(str(d) for d in node.shape)
    return f"its buffer of shape [{extents}] for this tile", "enlarge the buffer or compute less in it"


def _undecided(error: UndecidedError) -> Violation:
    message = f"the schedule could not be proven legal and counts as illegal: {error}"
    return Violation(ViolationKind.UNKNOWN, message, "simpler index expressions or constant sizes may help")
