"""Moving guards outwards, and turning those on a loop's own variable into the loop's bounds."""

from __future__ import annotations

import dataclasses

from polycomp.dtypes import DType
from polycomp.expr import Binary, Compare, Const, Expr, Var, binary, const, free_vars, linear_in, maximum, minimum
from polycomp.loops.ir import Alloc, Block, For, If, Stmt
from polycomp.loops.visit import block
from polycomp.poly.tree import LoopKind


def hoist_guards(stmt: Stmt) -> Stmt:
    """``stmt`` with every guard as far out as its variables allow."""
    match stmt:
        case For():
            return _hoist_from_loop(dataclasses.replace(stmt, body=hoist_guards(stmt.body)))
        case If():
            orelse = None if stmt.orelse is None else hoist_guards(stmt.orelse)
            return If(stmt.condition, hoist_guards(stmt.body), orelse)
        case Alloc():
            conditions, body = peel(hoist_guards(stmt.body))
            return guarded(conditions, Alloc(stmt.buffer, body))
        case Block():
            return _hoist_common([hoist_guards(s) for s in stmt.stmts])
    return stmt


def peel(stmt: Stmt) -> tuple[list[Expr], Stmt]:
    """The guards around ``stmt`` (conjunctions taken apart), and what is inside of them."""
    conditions: list[Expr] = []
    while isinstance(stmt, If) and stmt.orelse is None:
        conditions.extend(conjuncts(stmt.condition))
        stmt = stmt.body
    return conditions, stmt


def conjuncts(condition: Expr) -> list[Expr]:
    """The operands of nested logical ``and``."""
    if isinstance(condition, Binary) and condition.op == "and" and condition.dtype is DType.BOOL:
        return conjuncts(condition.left) + conjuncts(condition.right)
    return [condition]


def guarded(conditions: list[Expr], stmt: Stmt) -> Stmt:
    """``stmt`` inside of an If for each condition, the first outermost."""
    for condition in reversed(conditions):
        stmt = If(condition, stmt)
    return stmt


def _hoist_common(stmts: list[Stmt]) -> Stmt:
    peeled = [peel(s) for s in stmts]
    if not peeled:
        return Block(())
    common = [c for c in dict.fromkeys(peeled[0][0]) if all(c in conditions for conditions, _ in peeled)]
    rest = [guarded([c for c in conditions if c not in common], body) for conditions, body in peeled]
    return guarded(common, block(rest))


def _hoist_from_loop(loop: For) -> Stmt:
    conditions, body = peel(loop.body)
    outside = [c for c in conditions if loop.var not in free_vars(c)]
    inside: list[Expr] = []
    start, stop = loop.start, loop.stop
    for condition in conditions:
        if condition in outside:
            continue
        limit = bound_on(condition, loop.var)
        if limit is None or not _may_tighten(loop, limit[1]):
            inside.append(condition)
        elif limit[0] == "below":
            stop = minimum(stop, limit[1])
        else:
            start = maximum(start, limit[1])
    new = dataclasses.replace(loop, start=start, stop=stop, body=guarded(inside, body))
    return guarded(outside, new)


def _may_tighten(loop: For, limit: Expr) -> bool:
    """Loops that are unrolled or made vectors need constant bounds, and all loops over threads their own number."""
    if loop.kind is LoopKind.THREAD:
        return False
    if loop.kind.is_expanded:
        return isinstance(limit, Const) and isinstance(loop.start, Const) and isinstance(loop.stop, Const)
    return True


def bound_on(condition: Expr, var: Var) -> tuple[str, Expr] | None:
    """``("below", b)`` when the condition says ``var < b``, ``("from", b)`` when it says ``var >= b``, else None."""
    excess = nonnegative_form(condition)
    linear = None if excess is None else linear_in(excess, var)
    if linear is None or linear[0] == 0:
        return None
    coefficient, rest = linear
    if coefficient > 0:  # coefficient*var + rest >= 0
        return "from", binary("floordiv", const(coefficient - 1) - rest, coefficient)
    return "below", binary("floordiv", rest, -coefficient) + 1


def nonnegative_form(condition: Expr) -> Expr | None:
    """``e`` such that the (int64, ordering) condition says ``e >= 0``; None for other conditions."""
    if not isinstance(condition, Compare) or condition.left.dtype is not DType.INT64:
        return None
    left, right = condition.left, condition.right
    match condition.op:
        case "lt":
            return right - left - 1
        case "le":
            return right - left
        case "gt":
            return left - right - 1
        case "ge":
            return left - right
    return None
