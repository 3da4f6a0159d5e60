"""What the threads of a GPU's block have of their own, and where they wait for each other.

Loops over THREADs that follow one another in a block are phases: each is finished before the next begins, which is what
loops one after the other mean anyway. Here it is made cheap: registers that are allocated around such loops are shared
out, so that each thread holds the elements that it alone touches, in all phases; and a barrier is put where a phase
touches memory that another thread may have written, or may still read, in a phase before. Nobody writes barriers: they
are derived, like Halide's (Ragan-Kelley et al., "Halide", PLDI 2013).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from polycomp.errors import CompileError
from polycomp.expr import Const, Expr, Interval, Load, Var, bounds, const, free_vars, linear_in, simplify, transform
from polycomp.expr import walk as walk_expression
from polycomp.loops.ir import Alloc, Barrier, Block, Buffer, For, If, Let, Prefetch, Stmt, Store
from polycomp.loops.visit import block, expressions, for_range, inner, walk
from polycomp.poly.tree import LoopKind, Scope

Ranges = Mapping[Var, Interval]
Threads = tuple[tuple[Var, int], ...]
"""The loops over threads around a statement, outermost first: their variables and extents."""


# Sharing out registers


@dataclasses.dataclass(frozen=True)
class _Access:
    """``indices`` of an access to a buffer, and what is around it."""

    indices: tuple[Expr, ...]
    threads: Threads
    ranges: Ranges


@dataclasses.dataclass(frozen=True)
class _Digits:
    """Which thread has an element: the one whose number ``// weight % count`` is ``position // run % count``."""

    weight: int
    count: int
    run: int

    def owner(self, position: Expr, ranges: Ranges) -> Expr:
        return simplify(position // self.run % self.count, ranges)

    def slot(self, position: Expr, ranges: Ranges) -> Expr:
        """Which of its own elements that is for the thread."""
        return simplify(position // (self.run * self.count) * self.run + position % self.run, ranges)

    def slots(self, extent: int) -> int:
        whole, rest = divmod(extent, self.run * self.count)
        return whole * self.run + min(rest, self.run)


def share_out_registers(stmt: Stmt, ranges: Ranges, kernel: str) -> Stmt:
    """``stmt`` with every register buffer that lies around loops over threads as what one of the threads has of it;
    what threads reduce together is marked so first.

    Raises :class:`CompileError` when threads would touch each other's elements: such a buffer belongs in shared memory.
    """
    return _shared_out_within(mark_reductions(stmt, (), kernel), ranges, kernel)


def mark_reductions(stmt: Stmt, threads: Threads, kernel: str) -> Stmt:
    """``stmt`` with the number of threads in every store that reduces over loops of threads around it."""
    match stmt:
        case For():
            within = (*threads, (stmt.var, _extent(stmt))) if stmt.kind is LoopKind.THREAD else threads
            return dataclasses.replace(stmt, body=mark_reductions(stmt.body, within, kernel))
        case Store() if stmt.reduce and threads:
            return dataclasses.replace(stmt, across=_across(stmt, threads, kernel))
        case If():
            orelse = None if stmt.orelse is None else mark_reductions(stmt.orelse, threads, kernel)
            return If(stmt.condition, mark_reductions(stmt.body, threads, kernel), orelse)
        case Alloc() | Let():
            return dataclasses.replace(stmt, body=mark_reductions(stmt.body, threads, kernel))
        case Block():
            return block([mark_reductions(s, threads, kernel) for s in stmt.stmts])
    return stmt


def _across(store: Store, threads: Threads, kernel: str) -> int:
    """How many threads reduce into one element: those of the last loops, which its indices do not depend on."""
    apart = [any((linear_in(i, var) or (0,))[0] for i in store.indices) for var, _ in threads]
    last = max((d for d, one in enumerate(apart) if one), default=-1)
    used = [any(var in free_vars(i) for i in store.indices) for var, _ in threads]
    if not all(apart[: last + 1]) or any(used[last + 1 :]):
        raise CompileError(
            f"kernel {kernel!r} reduces into {store.buffer.name!r} over threads that are not neighbours; bind the "
            f"loops that reduce together inside of those that do not"
        )
    return math.prod(n for _, n in threads[last + 1 :])


def _shared_out_within(stmt: Stmt, ranges: Ranges, kernel: str) -> Stmt:
    match stmt:
        case For() if stmt.kind is LoopKind.THREAD:
            return stmt
        case For():
            within = {**ranges, stmt.var: for_range(stmt, ranges)}
            return dataclasses.replace(stmt, body=_shared_out_within(stmt.body, within, kernel))
        case Let():
            within = {**ranges, stmt.var: bounds(stmt.value, ranges)}
            return dataclasses.replace(stmt, body=_shared_out_within(stmt.body, within, kernel))
        case If():
            orelse = None if stmt.orelse is None else _shared_out_within(stmt.orelse, ranges, kernel)
            return If(stmt.condition, _shared_out_within(stmt.body, ranges, kernel), orelse)
        case Alloc():
            made = _shared_out(stmt, ranges, kernel) if stmt.buffer.scope is Scope.REGISTER else stmt
            return dataclasses.replace(made, body=_shared_out_within(made.body, ranges, kernel))
        case Block():
            return block([_shared_out_within(s, ranges, kernel) for s in stmt.stmts])
    return stmt


def _shared_out(alloc: Alloc, ranges: Ranges, kernel: str) -> Alloc:
    if not any(isinstance(s, For) and s.kind is LoopKind.THREAD for s in walk(alloc.body)):
        return alloc
    accesses = list(_accesses(alloc.body, alloc.buffer, (), ranges))
    digits = [_digits_of(d, accesses) for d in range(len(alloc.buffer.shape))]
    _check(alloc, accesses, digits, kernel)
    if not any(digits):
        return alloc
    shape = [n if x is None else x.slots(_constant(n)) for n, x in zip(alloc.buffer.shape, digits, strict=True)]
    own = dataclasses.replace(alloc.buffer, shape=tuple(shape))
    # Once more: a dimension may be shared out to warps, and what each of them has to its lanes.
    return _shared_out(Alloc(own, _with_own(alloc.body, alloc.buffer, own, digits, ranges)), ranges, kernel)


def _constant(dim: object) -> int:
    assert isinstance(dim, int)  # a register buffer's shape is
    return dim


def _accesses(stmt: Stmt, buffer: Buffer, threads: Threads, ranges: Ranges) -> Iterator[_Access]:
    match stmt:
        case For():
            ranges = {**ranges, stmt.var: for_range(stmt, ranges)}
            if stmt.kind is LoopKind.THREAD:
                threads = (*threads, (stmt.var, _extent(stmt)))
        case Let():
            ranges = {**ranges, stmt.var: bounds(stmt.value, ranges)}
        case Store() if stmt.buffer is buffer:
            yield _Access(stmt.indices, threads, ranges)
    for e in expressions(stmt):
        for part in walk_expression(e):
            if isinstance(part, Load) and part.source is buffer:
                yield _Access(part.indices, threads, ranges)
    for child in inner(stmt):
        yield from _accesses(child, buffer, threads, ranges)


def _extent(loop: For) -> int:
    assert isinstance(loop.stop, Const) and isinstance(loop.start, Const)  # as the tree's structure demands
    return int(loop.stop.value) - int(loop.start.value)


def _digits_of(dimension: int, accesses: Sequence[_Access]) -> _Digits | None:
    """How a dimension is shared out; None when no access uses a thread's number there."""
    for access in accesses:
        position = access.indices[dimension]
        for first, last in _runs_of(len(access.threads)):
            found = _digits(position, access.threads, first, last)
            if found is not None and _is_owned(position, access, found):
                return found
    return None


def _runs_of(count: int) -> Iterator[tuple[int, int]]:
    """The longest runs of loops over threads first: several of them may count one dimension."""
    for length in range(count, 0, -1):
        for first in range(count - length + 1):
            yield first, first + length - 1


def _digits(position: Expr, threads: Threads, first: int, last: int) -> _Digits | None:
    step = linear_in(position, threads[last][0])
    if step is None or step[0] <= 0:
        return None
    extents = [n for _, n in threads]
    return _Digits(math.prod(extents[last + 1 :]), math.prod(extents[first : last + 1]), step[0])


def _is_owned(position: Expr, access: _Access, digits: _Digits) -> bool:
    """Whether the thread that makes the access is the one that has the element."""
    number = _number(access.threads, digits)
    return number is not None and digits.owner(position, access.ranges) == simplify(number, access.ranges)


def _number(threads: Threads, digits: _Digits) -> Expr | None:
    """The thread's number ``// weight % count``, when that is made of whole loops."""
    number: Expr = const(0)
    weight = scale = 1
    for var, extent in reversed(threads):
        if weight >= digits.weight and scale < digits.count:
            number = number + var * scale
            scale *= extent
        weight *= extent
        if weight == digits.weight:
            number, scale = const(0), 1
    return number if scale == digits.count else None


def _check(alloc: Alloc, accesses: Sequence[_Access], digits: Sequence[_Digits | None], kernel: str) -> None:
    for access, (dimension, shared) in itertools.product(accesses, enumerate(digits)):
        position = access.indices[dimension]
        if shared is not None and not _is_owned(position, access, shared):
            raise CompileError(
                f"registers {alloc.buffer.name!r} of kernel {kernel!r} cannot be shared out to threads: position "
                f"{position} of dimension {dimension} is not the thread's own; store it in shared memory"
            )


def _with_own(stmt: Stmt, old: Buffer, new: Buffer, digits: Sequence[_Digits | None], ranges: Ranges) -> Stmt:
    """``stmt`` with the slots of ``new`` in place of the elements of ``old``."""

    def slots(indices: Sequence[Expr]) -> tuple[Expr, ...]:
        pairs = zip(indices, digits, strict=True)
        return tuple(change(i) if x is None else x.slot(change(i), ranges) for i, x in pairs)

    def relocate(e: Expr) -> Expr | None:
        return Load(new, slots(e.indices)) if isinstance(e, Load) and e.source is old else None

    def change(e: Expr) -> Expr:
        return transform(e, relocate)

    def each(child: Stmt) -> Stmt:
        return _with_own(child, old, new, digits, ranges)

    match stmt:
        case For():
            within = {**ranges, stmt.var: for_range(stmt, ranges)}
            return dataclasses.replace(stmt, body=_with_own(stmt.body, old, new, digits, within))
        case Let():
            within = {**ranges, stmt.var: bounds(stmt.value, ranges)}
            return Let(stmt.var, change(stmt.value), _with_own(stmt.body, old, new, digits, within))
        case If():
            return If(change(stmt.condition), each(stmt.body), None if stmt.orelse is None else each(stmt.orelse))
        case Alloc():
            return Alloc(stmt.buffer, each(stmt.body))
        case Block():
            return block(list(map(each, stmt.stmts)))
        case Store():
            own = stmt.buffer is old
            indices = slots(stmt.indices) if own else tuple(map(change, stmt.indices))
            return dataclasses.replace(
                stmt, buffer=new if own else stmt.buffer, indices=indices, value=change(stmt.value)
            )
    return stmt


# Barriers


@dataclasses.dataclass(frozen=True)
class _Touched:
    """Memory that other threads see, touched since the last barrier."""

    written: frozenset[Buffer] = frozenset()
    read: frozenset[Buffer] = frozenset()

    def union(self, other: _Touched) -> _Touched:
        return _Touched(self.written | other.written, self.read | other.read)

    def conflicts(self, later: _Touched) -> bool:
        """Whether ``later`` must wait for this. What is only written twice are different elements: each has one value
        (and an update of a sum reads it)."""
        return bool(self.written & later.read or self.read & later.written)


_NOTHING = _Touched()


def place_barriers(stmt: Stmt) -> Stmt:
    """``stmt`` with a barrier before every phase of a block that reads what a phase since the last one may have
    written, or that writes what such a phase may have read. Nothing changes where there are no threads of a GPU."""
    if not any(isinstance(s, For) and s.kind in (LoopKind.BLOCK, LoopKind.THREAD) for s in walk(stmt)):
        return stmt
    match stmt:
        case For() if stmt.kind is LoopKind.BLOCK:
            return dataclasses.replace(stmt, body=_in_block(stmt.body, _NOTHING)[0])
        case Block():
            return block([place_barriers(s) for s in stmt.stmts])
        case Alloc() | Let():
            return dataclasses.replace(stmt, body=place_barriers(stmt.body))
        case If() if any(isinstance(s, For) and s.kind is LoopKind.BLOCK for s in walk(stmt)):
            orelse = None if stmt.orelse is None else place_barriers(stmt.orelse)
            return If(stmt.condition, place_barriers(stmt.body), orelse)
    return _in_block(stmt, _NOTHING)[0]


def _in_block(stmt: Stmt, before: _Touched) -> tuple[Stmt, _Touched]:
    """``stmt`` with barriers, and what has been touched since the last one when it is over."""
    match stmt:
        case Block():
            made: list[Stmt] = []
            for child in stmt.stmts:
                new, before = _in_block(child, before)
                made.append(new)
            return block(made), before
        case For() if stmt.kind is LoopKind.BLOCK:
            return dataclasses.replace(stmt, body=_in_block(stmt.body, _NOTHING)[0]), before
        case For() if stmt.stages > 1:  # written out already: each iteration begins with a barrier
            return stmt, _touched(stmt)
        case For() if stmt.kind is not LoopKind.THREAD and _has_phases(stmt.body):
            return _in_loop(stmt, before)
        case If() if _has_phases(stmt):
            body, after = _in_block(stmt.body, before)
            orelse, after_else = (None, before) if stmt.orelse is None else _in_block(stmt.orelse, before)
            return If(stmt.condition, body, orelse), after.union(after_else)
        case Alloc() | Let():
            body, after = _in_block(stmt.body, before)
            return dataclasses.replace(stmt, body=body), after
    touched = _touched(stmt)
    if before.conflicts(touched):
        return block([Barrier(), stmt]), touched
    return stmt, before.union(touched)


def _has_phases(stmt: Stmt) -> bool:
    """Whether threads touch each other's memory in ``stmt`` one after the other: in loops over threads, and where one
    of them stores what all read."""
    return any(
        (isinstance(s, For) and s.kind is LoopKind.THREAD)
        or (isinstance(s, Store) and s.buffer.scope is not Scope.REGISTER)
        for s in walk(stmt)
    )


def _in_loop(loop: For, before: _Touched) -> tuple[Stmt, _Touched]:
    """What an iteration touches is there for the next one."""
    while True:
        body, after = _in_block(loop.body, before)
        if after.written <= before.written and after.read <= before.read:
            return dataclasses.replace(loop, body=body), before
        before = before.union(after)


def _touched(stmt: Stmt) -> _Touched:
    written = {s.buffer for s in walk(stmt) if isinstance(s, Store)}
    parts = (p for s in walk(stmt) if not isinstance(s, Prefetch) for e in expressions(s) for p in walk_expression(e))
    read = {p.source for p in parts if isinstance(p, Load)} | {
        s.buffer for s in walk(stmt) if isinstance(s, Store) and s.reduce
    }
    return _Touched(*(frozenset(b for b in found if b.scope is not Scope.REGISTER) for found in (written, read)))
