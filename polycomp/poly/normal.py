"""Fused loops taken apart again, so that points become affine.

A fused loop ``f`` is used as ``f // n`` and ``f % n``. When its extent is a multiple of ``n`` the loop is the same as
two nested loops ``q`` and ``r`` with ``f = n*q + r``: the same iterations in the same order.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from polycomp.expr import Binary, Const, Expr, Interval, Var, const, simplify, substitute, walk, wrap
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node
from polycomp.poly.tree import walk as walk_tree
from polycomp.te import Dim


def unfused(tree: tuple[Node, ...], ranges: Mapping[Var, Interval]) -> tuple[Node, ...]:
    """``tree`` with every loop that is only a fusion of others replaced by those."""
    divisors = _divisors(tree)
    if not divisors:
        return tree
    bounds = {**ranges}
    for node, _ in walk_tree(tree):
        if isinstance(node, Loop) and isinstance(node.extent, int):
            bounds[node.var] = (0, node.extent - 1)
    return _rewrite(tree, divisors, bounds, {})


def _divisors(tree: tuple[Node, ...]) -> dict[Var, set[Expr]]:
    """By loop variable: what it is divided by. A VECTOR loop stays whole: its lanes are one dimension."""
    found: dict[Var, set[Expr]] = {}
    vector = {n.var for n, _ in walk_tree(tree) if isinstance(n, Loop) and n.kind is LoopKind.VECTOR}
    for node, _ in walk_tree(tree):
        for e in _expressions(node):
            for part in walk(e):
                if isinstance(part, Binary) and part.op in ("floordiv", "floormod"):
                    variable, divisor = _divided(part)
                    if variable is not None and variable not in vector:
                        found.setdefault(variable, set()).add(divisor)
    return found


def _expressions(node: Node) -> Iterator[Expr]:
    if isinstance(node, Leaf):
        yield from (*node.point, *node.guards)
    elif isinstance(node, Allocate):
        yield from node.origin
    else:
        yield wrap(node.extent)


def _divided(e: Binary) -> tuple[Var | None, Expr]:
    """The variable and total divisor of ``((v // a) // b) % c`` and its like."""
    if isinstance(e.left, Var):
        return e.left, e.right
    if isinstance(e.left, Binary) and e.left.op == "floordiv":
        variable, divisor = _divided(e.left)
        return variable, divisor * e.right
    return None, e.right


def _rewrite(
    nodes: tuple[Node, ...], divisors: Mapping[Var, set[Expr]], ranges: dict[Var, Interval], values: dict[Var, Expr]
) -> tuple[Node, ...]:
    return tuple(_rewrite_node(n, divisors, ranges, values) for n in nodes)


def _rewrite_node(
    node: Node, divisors: Mapping[Var, set[Expr]], ranges: dict[Var, Interval], values: dict[Var, Expr]
) -> Node:
    def new(e: Expr) -> Expr:
        return simplify(substitute(e, values), ranges) if values else e

    if isinstance(node, Leaf):
        return Leaf(node.statement, tuple(map(new, node.point)), tuple(map(new, node.guards)))
    if isinstance(node, Allocate):
        body = _rewrite(node.body, divisors, ranges, values)
        return dataclasses.replace(node, origin=tuple(map(new, node.origin)), body=body)
    extent = node.extent if isinstance(node.extent, int) else new(node.extent)
    digits = _digits(node.var, extent, divisors.get(node.var, set()), ranges)
    if not digits:
        return dataclasses.replace(node, extent=extent, body=_rewrite(node.body, divisors, ranges, values))
    value: Expr = const(0)
    for var, size in digits:
        value = value * size + var
        ranges[var] = (0, size - 1 if isinstance(size, int) else None)
    body = _rewrite(node.body, divisors, ranges, {**values, node.var: value})
    for var, size in reversed(digits):
        body = (Loop(var, size, node.kind, body),)
    return body[0]


def _digits(var: Var, extent: Dim, divisors: set[Expr], ranges: Mapping[Var, Interval]) -> list[tuple[Var, Dim]]:
    """Variables and extents, outermost first, whose mixed-radix number is ``var``; empty when there are none."""
    constants = sorted(int(d.value) for d in divisors if isinstance(d, Const))
    if isinstance(extent, int) and len(constants) == len(divisors):
        return _constant_digits(var, extent, constants)
    if len(divisors) != 1 or isinstance(extent, int):
        return []
    (divisor,) = divisors
    if simplify(extent % divisor, ranges) != const(0):
        return []
    return [(Var(f"{var.name}.0"), simplify(extent // divisor, ranges)), (Var(f"{var.name}.1"), divisor)]


def _constant_digits(var: Var, extent: int, divisors: list[int]) -> list[tuple[Var, Dim]]:
    chain = [1, *(d for d in divisors if d > 1), extent]
    if len(chain) == 2 or extent <= 0 or any(big % small for small, big in itertools.pairwise(chain)):
        return []
    sizes = [big // small for small, big in itertools.pairwise(chain)]
    return [(Var(f"{var.name}.{i}"), size) for i, size in enumerate(reversed(sizes))]
