"""Horizontal reductions: stores in which groups of threads reduce into one element each, and what waits for them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping

from polycomp.errors import CompileError
from polycomp.expr import Const, Expr, Load, Var, free_vars
from polycomp.expr import walk as walk_expression
from polycomp.loops import Alloc, Barrier, Buffer, For, LoopKind, Scope, Stmt, Store
from polycomp.loops.visit import expressions, inner, walk


@dataclasses.dataclass(frozen=True)
class Group:
    """Neighbouring threads that reduce together: ``count`` of them.

    ``over`` are the variables of the loops over them. ``alike`` threads each do the same, because loops inside of the
    nest do not enclose the store. ``is_all`` says that the group is all threads of the nest.
    """

    over: frozenset[Var]
    count: int
    alike: int
    is_all: bool

    @property
    def reach(self) -> int:
        """The distance from one group to the next."""
        return self.count * self.alike


@dataclasses.dataclass(frozen=True)
class Groups:
    """Those of a launch's stores, by identity, and the statements in which threads wait for each other."""

    of_store: Mapping[int, Group]
    exchanging: frozenset[int]

    def of(self, store: Store) -> Group | None:
        """The group that a store is a reduction of; None when each thread has its own element."""
        return self.of_store.get(id(store))

    def exchanges(self, stmt: Stmt) -> bool:
        """Whether all threads of a block must come to ``stmt``."""
        return id(stmt) in self.exchanging


@dataclasses.dataclass(frozen=True)
class _Around:
    """The loops over threads around a statement, and the shape of their nest. ``is_repeated`` says that there is
    another loop between them, ``in_loop`` that there is one inside of the innermost."""

    kernel: str
    threads: tuple[For, ...] = ()
    shape: tuple[int, ...] = ()
    is_repeated: bool = False
    in_loop: bool = False
    allocated: Mapping[Buffer, int] = dataclasses.field(default_factory=dict)

    @property
    def alike(self) -> int:
        """How many threads execute a statement alike."""
        return math.prod(self.shape[len(self.threads) :])

    def inside(self, stmt: Stmt) -> _Around:
        match stmt:
            case For(kind=LoopKind.THREAD):
                shape, repeated = self.shape or shape_of(stmt, self.kernel), self.is_repeated or self.in_loop
                return dataclasses.replace(self, threads=(*self.threads, stmt), shape=shape, is_repeated=repeated)
            case For() if self.threads:
                return dataclasses.replace(self, in_loop=True)
            case Alloc():
                return dataclasses.replace(self, allocated={**self.allocated, stmt.buffer: len(self.threads)})
        return self


def outermost_threads(stmt: Stmt) -> Iterator[For]:
    """The loops over threads that are in no other one."""
    if isinstance(stmt, For) and stmt.kind is LoopKind.THREAD:
        yield stmt
        return
    for child in inner(stmt):
        yield from outermost_threads(child)


def shape_of(nest: For, kernel: str) -> tuple[int, ...]:
    """The extents of nested loops over threads, outermost first; of several at one depth the largest."""
    below = [shape_of(loop, kernel) for loop in outermost_threads(nest.body)]
    return extent_of(nest, kernel), *(max(extents) for extents in itertools.zip_longest(*below, fillvalue=1))


def extent_of(loop: For, kernel: str) -> int:
    """The number of threads of a loop over them. Raises :class:`CompileError` when it is not constant."""
    if not isinstance(loop.start, Const) or not isinstance(loop.stop, Const):
        raise CompileError(
            f"kernel {kernel!r} has a loop over threads {loop.var.name!r} from {loop.start} to {loop.stop}, which must "
            f"be known while compiling"
        )
    return int(loop.stop.value) - int(loop.start.value)


def find_groups(body: Stmt, kernel: str) -> Groups:
    """The horizontal reductions of one launch.

    Raises :class:`CompileError` for what its threads cannot do together.
    """
    around = _Around(kernel)
    groups: dict[int, Group] = {}
    for stmt, place in _statements(body, around):
        group = _group(stmt, place) if isinstance(stmt, Store) else None
        if group is not None:
            groups[id(stmt)] = group
    exchanging: set[int] = set()
    _mark(body, groups, exchanging)
    for nest in outermost_threads(body):
        _check_nest(nest, around, groups)
        _check_registers(nest, around)
    return Groups(groups, frozenset(exchanging))


def _mark(stmt: Stmt, groups: Mapping[int, Group], found: set[int]) -> bool:
    children = [_mark(child, groups, found) for child in inner(stmt)]
    if any(children) or isinstance(stmt, Barrier) or id(stmt) in groups:
        found.add(id(stmt))
        return True
    return False


def _group(store: Store, around: _Around) -> Group | None:
    """The threads of the last loops around a store, ``store.across`` in all. What a thread allocates is its own."""
    own = around.allocated.get(store.buffer, 0) if store.buffer.scope is Scope.REGISTER else 0
    first, across = len(around.threads), 1
    while first > own and across < store.across:
        first -= 1
        across *= extent_of(around.threads[first], around.kernel)
    count = math.prod(around.shape[first : len(around.threads)])
    if count == 1:
        return None
    over = frozenset(loop.var for loop in around.threads[first:])
    return Group(over, count, around.alike, count == math.prod(around.shape))


@dataclasses.dataclass(frozen=True)
class _Use:
    """An access to memory within a nest: the variables that number the thread that makes it, and the innermost loop
    over threads around it. ``is_alone`` says that it is the only thread for their values, and ``in_order`` that each
    thread comes there once, or with no other thread in between."""

    indices: tuple[Expr, ...]
    thread: frozenset[Var]
    loop: int
    reads: bool
    is_alone: bool
    in_order: bool


def _check_nest(nest: For, around: _Around, groups: Mapping[int, Group]) -> None:
    """Threads of one nest do not wait for each other: what one writes to memory, no other may read there.

    The schedule's own rules say that much of iterations of one loop over threads, but not of two such loops that follow
    one another in an outer one, or of one that is executed again and again.
    """
    uses: dict[Buffer, list[_Use]] = {}
    for stmt, place in _statements(nest, around):
        for buffer, use in _uses(stmt, place, groups):
            uses.setdefault(buffer, []).append(use)
    stored = {s.buffer for s in walk(nest) if isinstance(s, Store) and s.buffer.scope is not Scope.REGISTER}
    for buffer in uses.keys() & stored:
        found = uses[buffer]
        same = all((u.indices, u.thread, u.is_alone) == (found[0].indices, found[0].thread, True) for u in found)
        simple = all(u.loop == found[0].loop and u.is_alone and u.in_order for u in found)
        if not same and not simple and any(u.reads for u in found):
            raise CompileError(
                f"kernel {around.kernel!r} passes {buffer.name!r} from thread to thread within one nest of loops over "
                f"threads, where none waits for another"
            )


def _statements(stmt: Stmt, around: _Around) -> Iterator[tuple[Stmt, _Around]]:
    yield stmt, around
    within = around.inside(stmt)
    for child in inner(stmt):
        yield from _statements(child, within)


def _uses(stmt: Stmt, around: _Around, groups: Mapping[int, Group]) -> Iterator[tuple[Buffer, _Use]]:
    if not around.threads:
        return
    variables = frozenset(loop.var for loop in around.threads)
    loop, once = id(around.threads[-1]), not around.is_repeated
    group = groups.get(id(stmt))
    by_one = isinstance(stmt, Store) and stmt.buffer.scope is not Scope.REGISTER and group is None
    for part in (part for e in expressions(stmt) for part in walk_expression(e)):
        if isinstance(part, Load):
            alone = by_one or around.alike == 1
            yield part.source, _Use(part.indices, variables, loop, True, alone, once and around.alike == 1)
    if isinstance(stmt, Store):
        threads = variables - (group.over if group is not None else frozenset())
        in_order = once and around.alike == 1 and group is None
        yield stmt.buffer, _Use(stmt.indices, threads, loop, bool(stmt.reduce), True, in_order)


def _check_registers(stmt: Stmt, around: _Around) -> None:
    """Registers that lie around loops over threads are shared out by now: which of its own a thread touches does not
    depend on its number."""
    used = [(stmt.buffer, stmt.indices)] if isinstance(stmt, Store) else []
    parts = (part for e in expressions(stmt) for part in walk_expression(e))
    used += [(part.source, part.indices) for part in parts if isinstance(part, Load)]
    for buffer, indices in used:
        inside = {loop.var for loop in around.threads[around.allocated.get(buffer, 0) :]}
        if buffer.scope is Scope.REGISTER and any(free_vars(i) & inside for i in indices):
            raise CompileError(
                f"kernel {around.kernel!r} has registers {buffer.name!r} that threads touch by their numbers; store "
                f"them in shared memory"
            )
    within = around.inside(stmt)
    for child in inner(stmt):
        _check_registers(child, within)


def sole_store(stmt: Stmt) -> Store | None:
    """The store in ``stmt``, when there is only one."""
    stores = [s for s in walk(stmt) if isinstance(s, Store)]
    return stores[0] if len(stores) == 1 else None
