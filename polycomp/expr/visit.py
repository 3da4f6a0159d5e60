"""Walking and rewriting expressions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

from polycomp.expr.nodes import (
    Binary,
    Cast,
    CheckedIndex,
    Compare,
    Const,
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


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct operands of ``e``, in evaluation order."""
    match e:
        case Const() | Var():
            return ()
        case Load():
            return e.indices
        case Binary() | Compare():
            return (e.left, e.right)
        case Unary() | Cast() | Reduce():
            return (e.operand,)
        case Select():
            return (e.condition, e.on_true, e.on_false)
        case CheckedIndex():
            return (e.index, e.size)
    raise TypeError(f"not an expression: {type(e).__name__}")


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
        stack.extend(reversed(children(node)))


def transform(e: Expr, rewrite: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite bottom-up: ``rewrite`` gets each node with its operands already rewritten, None keeps the node."""
    operands = children(e)
    new = tuple(transform(c, rewrite) for c in operands)
    same = all(a is b for a, b in zip(operands, new, strict=True))
    rebuilt = e if same else rebuild(e, new)
    replacement = rewrite(rebuilt)
    return rebuilt if replacement is None else replacement


def substitute(e: Expr, values: Mapping[Var, Expr]) -> Expr:
    """``e`` with each variable in ``values`` replaced."""
    if not values:
        return e
    return transform(e, lambda n: values.get(n) if isinstance(n, Var) else None)


@functools.lru_cache(maxsize=16384)
def free_vars(e: Expr) -> frozenset[Var]:
    """All variables that occur in ``e`` (those of a reduction's axes included)."""
    return frozenset(n for n in walk(e) if isinstance(n, Var))


@functools.lru_cache(maxsize=4096)  # a schedule asks for those of the same statements at every step
def loads(e: Expr) -> tuple[Load, ...]:
    """All loads in ``e``, in evaluation order, repeats included."""
    return tuple(n for n in walk(e) if isinstance(n, Load))
