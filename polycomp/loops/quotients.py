"""Names for the quotients and remainders of fused loops.

Fusing loops leaves ``f // n`` and ``f % n`` wherever an original loop variable stood. Bound to variables of their own
they are computed once per iteration, and conditions on them can be decided like conditions on a loop's variable.
"""

from __future__ import annotations

import dataclasses

from polycomp.expr import Binary, Expr, Var, free_vars, to_text, transform
from polycomp.loops.ir import Alloc, Block, For, If, Let, Stmt
from polycomp.loops.visit import block, expressions, map_expressions, walk
from polycomp.poly.tree import LoopKind


def bind_quotients(stmt: Stmt) -> Stmt:
    """``stmt`` with a Let for every quotient and remainder of a loop's variable alone, where the loop stays a loop."""
    match stmt:
        case For():
            return _bind(dataclasses.replace(stmt, body=bind_quotients(stmt.body)))
        case If():
            orelse = None if stmt.orelse is None else bind_quotients(stmt.orelse)
            return If(stmt.condition, bind_quotients(stmt.body), orelse)
        case Let():
            return Let(stmt.var, stmt.value, bind_quotients(stmt.body))
        case Alloc():
            return Alloc(stmt.buffer, bind_quotients(stmt.body))
        case Block():
            return block([bind_quotients(s) for s in stmt.stmts])
    return stmt


def _bind(loop: For) -> Stmt:
    if loop.kind is not LoopKind.SERIAL and not loop.kind.is_shared_out:
        return loop
    found: dict[Expr, None] = {}
    for stmt in walk(loop.body):
        for e in expressions(stmt):
            _collect(e, loop.var, found)
    names = {e: Var(f"{loop.var.name}.{i}") for i, e in enumerate(sorted(found, key=to_text))}
    body = map_expressions(loop.body, lambda e: transform(e, names.get))
    for value, name in names.items():
        body = Let(name, value, body)
    return dataclasses.replace(loop, body=body)


def _collect(e: Expr, var: Var, found: dict[Expr, None]) -> None:
    """The outermost quotients and remainders in ``e`` that depend on ``var`` and on nothing else."""
    if isinstance(e, Binary) and e.op in ("floordiv", "floormod") and free_vars(e) == {var}:
        found[e] = None
        return
    for child in e.operands:
        _collect(child, var, found)
