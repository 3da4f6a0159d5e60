"""Walking and rewriting loop nests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from polycomp.expr import Const, Expr, Interval, Var, bounds, simplify, substitute
from polycomp.loops.ir import Alloc, Await, Barrier, Block, Commit, For, If, Let, Prefetch, Stmt, Store


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that belong to ``stmt`` itself, not to statements inside of it."""
    match stmt:
        case For():
            return (stmt.start, stmt.stop)
        case If():
            return (stmt.condition,)
        case Let():
            return (stmt.value,)
        case Store():
            return (*stmt.indices, stmt.value)
        case Prefetch():
            return stmt.indices
    return ()


def inner(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements directly inside of ``stmt``."""
    match stmt:
        case Block():
            return stmt.stmts
        case If() if stmt.orelse is not None:
            return (stmt.body, stmt.orelse)
        case For() | If() | Let() | Alloc():
            return (stmt.body,)
    return ()


def walk(stmt: Stmt) -> Iterator[Stmt]:
    """``stmt`` and all statements inside of it, in order."""
    yield stmt
    for child in inner(stmt):
        yield from walk(child)


def map_expressions(stmt: Stmt, change: Callable[[Expr], Expr]) -> Stmt:
    """``stmt`` with every expression in it, at any depth, replaced."""

    def each(s: Stmt) -> Stmt:
        return map_expressions(s, change)

    match stmt:
        case For():
            return dataclasses.replace(stmt, start=change(stmt.start), stop=change(stmt.stop), body=each(stmt.body))
        case If():
            orelse = None if stmt.orelse is None else each(stmt.orelse)
            return If(change(stmt.condition), each(stmt.body), orelse)
        case Let():
            return Let(stmt.var, change(stmt.value), each(stmt.body))
        case Alloc():
            return Alloc(stmt.buffer, each(stmt.body))
        case Block():
            return Block(tuple(map(each, stmt.stmts)))
        case Store():
            return dataclasses.replace(stmt, indices=tuple(map(change, stmt.indices)), value=change(stmt.value))
        case Prefetch():
            return dataclasses.replace(stmt, indices=tuple(map(change, stmt.indices)))
        case Barrier() | Commit() | Await():
            return stmt
    raise TypeError(f"not a loop-nest statement: {type(stmt).__name__}")


def replace_vars(stmt: Stmt, values: Mapping[Var, Expr]) -> Stmt:
    """``stmt`` with variables replaced in every expression."""
    return map_expressions(stmt, lambda e: substitute(e, values))


def block(stmts: list[Stmt]) -> Stmt:
    """The statements as one, nested blocks flattened and empty ones dropped."""
    flat: list[Stmt] = []
    for stmt in stmts:
        flat.extend(stmt.stmts if isinstance(stmt, Block) else (stmt,))
    return flat[0] if len(flat) == 1 else Block(tuple(flat))


def is_empty(stmt: Stmt) -> bool:
    """Whether ``stmt`` does nothing at all."""
    return isinstance(stmt, Block) and not stmt.stmts


def for_range(loop: For, ranges: Mapping[Var, Interval]) -> Interval:
    """Inclusive bounds of a loop's variable, given those of the variables outside."""
    low = bounds(loop.start, ranges)[0]
    high = bounds(loop.stop, ranges)[1]
    return (low, None if high is None else max(high - 1, low or 0))


def simplified(stmt: Stmt, ranges: Mapping[Var, Interval]) -> Stmt:
    """``stmt`` with all expressions in normal form, decided branches taken, and loops of one or no iteration gone."""
    match stmt:
        case For():
            return _simplified_for(stmt, ranges)
        case If():
            return _simplified_if(stmt, ranges)
        case Let():
            return _simplified_let(stmt, ranges)
        case Alloc():
            body = simplified(stmt.body, ranges)
            return body if is_empty(body) else Alloc(stmt.buffer, body)
        case Block():
            return block([simplified(s, ranges) for s in stmt.stmts])
    return map_expressions(stmt, lambda e: simplify(e, ranges))


def _simplified_for(loop: For, ranges: Mapping[Var, Interval]) -> Stmt:
    start, stop = simplify(loop.start, ranges), simplify(loop.stop, ranges)
    extent = simplify(stop - start, ranges)
    low, high = bounds(extent, ranges)
    if high is not None and high <= 0:
        return Block(())
    if low == high == 1:
        return simplified(replace_vars(loop.body, {loop.var: start}), ranges)
    new = dataclasses.replace(loop, start=start, stop=stop)
    body = simplified(loop.body, {**ranges, loop.var: for_range(new, ranges)})
    return body if is_empty(body) else dataclasses.replace(new, body=body)


def _simplified_let(let: Let, ranges: Mapping[Var, Interval]) -> Stmt:
    value = simplify(let.value, ranges)
    if isinstance(value, Const | Var):
        return simplified(replace_vars(let.body, {let.var: value}), ranges)
    body = simplified(let.body, {**ranges, let.var: bounds(value, ranges)})
    return body if is_empty(body) else Let(let.var, value, body)


def _simplified_if(stmt: If, ranges: Mapping[Var, Interval]) -> Stmt:
    condition = simplify(stmt.condition, ranges)
    orelse = None if stmt.orelse is None else simplified(stmt.orelse, ranges)
    if isinstance(condition, Const):
        return simplified(stmt.body, ranges) if condition.value else orelse or Block(())
    body = simplified(stmt.body, ranges)
    if orelse is not None and is_empty(orelse):
        orelse = None
    return Block(()) if is_empty(body) and orelse is None else If(condition, body, orelse)
