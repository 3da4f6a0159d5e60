"""The leaves of a schedule tree with everything that legality asks about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from polycomp.expr import Expr, Interval, Var, bounds, compare, free_vars, substitute, wrap
from polycomp.poly.accesses import Access, Condition, reads_of, write_of
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.linear import Form, Forms, Prover, linear_facts
from polycomp.poly.tree import Allocate, Leaf, Loop, Node
from polycomp.te import Tensor

Storage = tuple[int, ...]
"""Identifies an execution-private buffer: the position of its Allocate node in the tree; () for kernel arguments."""


@dataclasses.dataclass(frozen=True, eq=False)
class Touch:
    """An access by a leaf, over loop variables (and ``unknowns``). ``facts`` are >= 0 where it happens."""

    access: Access
    indices: tuple[Form, ...]
    facts: tuple[Form, ...]
    conditions: tuple[Condition, ...]
    storage: Storage | None
    unknowns: tuple[Var, ...] = ()

    @property
    def tensor(self) -> Tensor:
        return self.access.tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Scheduled:
    """A leaf in its place. ``facts`` (>= 0) follow from loop extents and guards, and say all of them when
    ``facts_complete``; ``domain_facts`` (>= 0) hold exactly where the instance is inside its statement's domain."""

    statement: Statement
    leaf: Leaf
    path: tuple[Node, ...]
    positions: tuple[int, ...]
    loops: tuple[Loop, ...]
    point: tuple[Form, ...]
    facts: tuple[Form, ...]
    facts_complete: bool
    domain_facts: tuple[Form, ...]
    reads: tuple[Touch, ...]
    write: Touch

    @property
    def rank(self) -> int:
        return len(self.statement.tensor.axes)

    def loops_outside(self, depth: int) -> tuple[Loop, ...]:
        """The loops among the first ``depth`` nodes of the path."""
        return tuple(n for n in self.path[:depth] if isinstance(n, Loop))


def common_depth(a: Scheduled, b: Scheduled) -> int:
    """How many enclosing nodes two leaves share; the path's length for a leaf and itself."""
    depth = 0
    for x, y in zip(a.positions, b.positions, strict=False):
        if x != y:
            return depth
        depth += 1
    return depth - 1


class Schedule:
    """All leaves of a kernel's (unfused) tree, and the bounds of its variables."""

    def __init__(self, kernel: Kernel, tree: tuple[Node, ...]) -> None:
        self.kernel = kernel
        ranges: dict[Var, Interval] = {v: (max(0, r[0] or 0), r[1]) for v, r in kernel.ranges.items()}
        for size in kernel.sizes:
            ranges.setdefault(size, (0, None))
        self.forms = Forms(ranges)
        self.leaves: list[Scheduled] = []
        self._accesses: dict[str, tuple[Access, tuple[Access, ...]]] = {}
        self._visit(tree, (), ())

    def _visit(self, nodes: tuple[Node, ...], path: tuple[Node, ...], positions: tuple[int, ...]) -> None:
        for i, node in enumerate(nodes):
            place = (*positions, i)
            if isinstance(node, Leaf):
                self.leaves.append(self._schedule(node, path, place))
                continue
            if isinstance(node, Loop):
                self.forms.ranges[node.var] = self._range(node)
            self._visit(node.body, (*path, node), place)

    def _range(self, loop: Loop) -> Interval:
        if isinstance(loop.extent, int):
            return (0, loop.extent - 1)
        high = bounds(loop.extent, self.forms.ranges)[1]
        return (0, None if high is None else high - 1)

    def _schedule(self, leaf: Leaf, path: tuple[Node, ...], positions: tuple[int, ...]) -> Scheduled:
        statement = self.kernel.statements[leaf.statement]
        loops = tuple(n for n in path if isinstance(n, Loop))
        point = tuple(self.forms.of(p) for p in leaf.point)
        facts = [self.extent_of(loop).plus(Form({loop.var: 1}), -1).add(-1) for loop in loops if not _fixed(loop)]
        complete = True
        for guard in leaf.guards:
            found, exact = linear_facts(guard, True, self.forms)
            facts += found
            complete = complete and exact
        if statement.name not in self._accesses:
            self._accesses[statement.name] = (write_of(statement), reads_of(statement))
        write, reads = self._accesses[statement.name]
        touch = _Toucher(self, statement, leaf, point, path, positions)
        domain_facts = self._domain_facts(statement, point)
        return Scheduled(
            statement, leaf, path, positions, loops, point, tuple(facts), complete, domain_facts,
            tuple(map(touch, reads)), touch(write),
        )  # fmt: skip

    def _domain_facts(self, statement: Statement, point: tuple[Form, ...]) -> tuple[Form, ...]:
        upper = (self.forms.of(a.extent).plus(p, -1).add(-1) for a, p in zip(statement.iters, point, strict=True))
        return (*point, *upper)

    def new_variable(self, name: str, extent: Form) -> Var:
        """A variable that runs over ``0 <= variable < extent``."""
        high = Prover(self.forms, ()).interval(extent)[1]
        self.forms.ranges[Var(name)] = (0, None if high is None else high - 1)
        return Var(name)

    def extent_of(self, loop: Loop) -> Form:
        return self.forms.of(loop.extent)

    def touching(self, tensor: Tensor, storage: Storage) -> list[Scheduled]:
        """The leaves that write ``tensor`` in ``storage``, in the order of the tree."""
        return [w for w in self.leaves if w.statement.tensor is tensor and w.write.storage == storage]


def _fixed(loop: Loop) -> bool:
    return isinstance(loop.extent, int)


class _Toucher:
    """Turns a statement's accesses into those of one leaf."""

    def __init__(
        self, schedule: Schedule, statement: Statement, leaf: Leaf, point: tuple[Form, ...], path: tuple[Node, ...],
        positions: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.schedule, self.path, self.positions = schedule, path, positions
        self.exprs: Mapping[Var, Expr] = dict(zip(statement.iters, leaf.point, strict=True))
        self.values: Mapping[Var, Form] = dict(zip(statement.iters, point, strict=True))

    def __call__(self, access: Access) -> Touch:
        forms = self.schedule.forms
        conditions = [(substitute(c, self.exprs), holds) for c, holds in access.conditions]
        for var, extent in access.unknowns.items():
            forms.ranges[var] = (0, _highest(extent, forms.ranges))
            conditions.append((compare("lt", var, wrap(extent)), True))
        facts = [f for c, holds in conditions for f in linear_facts(c, holds, forms)[0]]
        indices = tuple(forms.substituted(forms.of(i), self.values) for i in access.indices)
        storage = storage_of(access.tensor, self.path, self.positions, self.schedule.kernel)
        return Touch(access, indices, tuple(facts), tuple(conditions), storage, tuple(access.unknowns))


def _highest(extent: Expr | int, ranges: Mapping[Var, Interval]) -> int | None:
    high = bounds(wrap(extent), ranges)[1]
    return None if high is None else high - 1


def storage_of(tensor: Tensor, path: Iterable[Node], positions: tuple[int, ...], kernel: Kernel) -> Storage | None:
    """Where a leaf below ``path`` finds ``tensor``: its innermost Allocate, or the kernel's argument; else None."""
    found: Storage | None = () if tensor in (*kernel.inputs, *kernel.outputs) else None
    for depth, node in enumerate(path):
        if isinstance(node, Allocate) and node.tensor is tensor:
            found = positions[: depth + 1]
    return found


def allocate_at(leaf: Scheduled, storage: Storage) -> Allocate:
    """The Allocate node that ``storage`` names, seen from a leaf inside it."""
    node = leaf.path[len(storage) - 1]
    assert isinstance(node, Allocate)
    return node


def folds_of(leaf: Scheduled, storage: Storage) -> tuple[int, ...]:
    """The folds of the buffer that ``storage`` names, as in :class:`Allocate`; arguments have none."""
    return allocate_at(leaf, storage).folds if storage else ()


def variables_in(dims: Iterable[Expr | int]) -> frozenset[Var]:
    return frozenset(v for d in dims for v in free_vars(wrap(d)))
