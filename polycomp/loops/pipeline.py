"""Software pipelines: what an iteration copies to shared memory is asked for some iterations before.

The shared buffers of such a loop get as many slots as there are stages, which iterations use in turn. An iteration
waits for its own copies, asks for those of a later one, and computes meanwhile. One barrier at its beginning is enough:
behind it all threads have computed what was in the slot that is filled next, and what each of them copied for this
iteration is seen by all. (Lam, "Software pipelining", PLDI 1988; the copies are cp.async of NVIDIA's GPUs since sm_80.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.expr import Expr, Load, Var, compare, const, simplify, transform
from polycomp.expr import walk as walk_expression
from polycomp.loops.ir import Alloc, Await, Barrier, Block, Buffer, Commit, For, If, Let, Prefetch, Stmt, Store
from polycomp.loops.visit import block, expressions, map_expressions, replace_vars, walk
from polycomp.poly.tree import LoopKind, Scope


def expand_pipelines(stmt: Stmt) -> Stmt:
    """``stmt`` with its pipelined loops written out. Loops that copy nothing to shared memory stay as they are, and so
    do those in which threads exchange more than these copies."""
    match stmt:
        case For() if stmt.stages > 1:
            return _expanded(stmt)
        case For() | Let() | Alloc():
            return dataclasses.replace(stmt, body=expand_pipelines(stmt.body))
        case If():
            orelse = None if stmt.orelse is None else expand_pipelines(stmt.orelse)
            return If(stmt.condition, expand_pipelines(stmt.body), orelse)
        case Block():
            return block([expand_pipelines(s) for s in stmt.stmts])
    return stmt


def _expanded(loop: For) -> Stmt:
    buffers, rest = _shared_buffers(loop.body)
    stmts = rest.stmts if isinstance(rest, Block) else (rest,)
    copies = _leading_copies(stmts, buffers)
    if not copies or _written(stmts[len(copies) :]) & set(buffers):
        return dataclasses.replace(loop, stages=1)
    slots = {b: dataclasses.replace(b, shape=(loop.stages, *b.shape)) for b in buffers}
    early = loop.stages - 1
    first, later = Var(f"{loop.var.name}.first"), simplify(loop.var + early)
    prologue = For(first, const(0), const(early), LoopKind.UNROLL, _copied(copies, slots, loop, loop.start + first))
    body = [
        Await(early - 1),
        Barrier(),
        _copied(copies, slots, loop, later),
        _in_slots(block(list(stmts[len(copies) :])), slots, simplify((loop.var - loop.start) % loop.stages)),
    ]
    made: Stmt = block([prologue, dataclasses.replace(loop, body=block(body))])
    for buffer in reversed(buffers):
        made = Alloc(slots[buffer], made)
    return made


def _shared_buffers(stmt: Stmt) -> tuple[list[Buffer], Stmt]:
    """The shared buffers that are allocated around all of ``stmt``, and what is inside."""
    found: list[Buffer] = []
    while isinstance(stmt, Alloc) and stmt.buffer.scope is Scope.SHARED:
        found.append(stmt.buffer)
        stmt = stmt.body
    return found, stmt


def _leading_copies(stmts: Sequence[Stmt], buffers: Sequence[Buffer]) -> list[Stmt]:
    """The first statements that fill shared buffers from what the loop does not change, perhaps through registers."""
    written = _written(stmts)
    copies: list[Stmt] = []
    for stmt in stmts:
        own = {s.buffer for s in walk(stmt) if isinstance(s, Alloc)}
        stores = [s for s in walk(stmt) if isinstance(s, Store) and s.buffer not in own]
        if any(s.buffer not in buffers or s.reduce for s in stores) or _read(stmt) & (written - own):
            break
        copies.append(stmt)
    return copies


def _written(stmts: Sequence[Stmt]) -> set[Buffer]:
    return {s.buffer for stmt in stmts for s in walk(stmt) if isinstance(s, Store)}


def _read(stmt: Stmt) -> set[Buffer]:
    parts = (p for s in walk(stmt) if not isinstance(s, Prefetch) for e in expressions(s) for p in walk_expression(e))
    return {p.source for p in parts if isinstance(p, Load)}


def _copied(copies: Sequence[Stmt], slots: Mapping[Buffer, Buffer], loop: For, at: Expr) -> Stmt:
    """The copies of iteration ``at``, if there is one, as a group."""
    own = replace_vars(block(list(copies)), {loop.var: at})
    slot = simplify((at - loop.start) % loop.stages)
    return block([If(compare("lt", at, loop.stop), _in_slots(own, slots, slot, ahead=True)), Commit()])


def _in_slots(stmt: Stmt, slots: Mapping[Buffer, Buffer], slot: Expr, ahead: bool = False) -> Stmt:
    """``stmt`` on one slot of each buffer."""

    def relocate(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.source not in slots:
            return None
        return Load(slots[e.source], (slot, *(transform(i, relocate) for i in e.indices)))

    def stored(s: Stmt) -> Stmt:
        match s:
            case Store() if s.buffer in slots:
                return dataclasses.replace(s, buffer=slots[s.buffer], indices=(slot, *s.indices), ahead=ahead)
            case For() | Let() | Alloc():
                return dataclasses.replace(s, body=stored(s.body))
            case If():
                return If(s.condition, stored(s.body), None if s.orelse is None else stored(s.orelse))
            case Block():
                return block([stored(x) for x in s.stmts])
        return s

    return stored(map_expressions(stmt, lambda e: transform(e, relocate)))
