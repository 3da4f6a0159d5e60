"""Walking and rewriting expressions."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping

from polycomp.expr.nodes import (
    Binary,
    Cast,
    CheckedIndex,
    Compare,
    Expr,
    Load,
    Reduce,
    Select,
    Unary,
    Var,
    binary,
    cast,
    compare,
)


def rebuild(e: Expr, operands: tuple[Expr, ...]) -> Expr:
    """``e`` with its direct operands replaced; index arithmetic is folded again."""
    match e:
        case Load():
            return Load(e.source, operands)
        case Binary():
            return binary(e.op, *operands)
        case Compare():
            return compare(e.op, *operands)
        case Unary():
            return Unary(e.op, operands[0])
        case Cast():
            return cast(e.dtype, operands[0])
        case Reduce():
            return dataclasses.replace(e, operand=operands[0])
        case Select():
            return Select(*operands)
        case CheckedIndex():
            return CheckedIndex(*operands)
    return e


def walk(e: Expr) -> Iterator[Expr]:
    """``e`` and all expressions below it, parents first."""
    stack = [e]
    while stack:
        node = stack.pop()
        yield node
        stack += node.operands[::-1]


def transform(e: Expr, rewrite: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite bottom-up: ``rewrite`` gets each node with its operands already rewritten, None keeps the node."""
    operands = e.operands
    if operands:
        new = tuple([transform(c, rewrite) for c in operands])
        if any(map(operator.is_not, operands, new)):
            e = rebuild(e, new)
    replacement = rewrite(e)
    return e if replacement is None else replacement


def substitute(e: Expr, values: Mapping[Var, Expr]) -> Expr:
    """``e`` with each variable in ``values`` replaced."""
    if isinstance(e, Var):
        return values.get(e, e)
    if free_vars(e).isdisjoint(values):
        return e
    return rebuild(e, tuple([substitute(c, values) for c in e.operands]))


def free_vars(e: Expr) -> frozenset[Var]:
    """All variables that occur in ``e`` (those of a reduction's axes included)."""
    known: frozenset[Var] | None = e.__dict__.get("_free_vars")
    if known is None:
        known = frozenset([e]) if isinstance(e, Var) else frozenset().union(*map(free_vars, e.operands))
        e.__dict__["_free_vars"] = known
    return known


@functools.lru_cache(maxsize=4096)  # a schedule asks for those of the same statements at every step
def loads(e: Expr) -> tuple[Load, ...]:
    """All loads in ``e``, in evaluation order, repeats included."""
    return tuple(n for n in walk(e) if isinstance(n, Load))
