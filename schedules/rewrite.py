"""Surgery on schedule trees: finding loops, replacing subtrees, substituting loop variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from polycomp.expr import Expr, Interval, Var, bounds, free_vars, simplify, substitute, wrap
from polycomp.poly.tree import Allocate, Leaf, Loop, Node, walk
from polycomp.te import Dim

Nodes = tuple[Node, ...]


def path_to_loop(tree: Nodes, var: Var) -> tuple[Node, ...] | None:
    """The nodes from the root to the loop over ``var``, that loop included; None when there is none."""
    for node, path in walk(tree):
        if isinstance(node, Loop) and node.var == var:
            return (*path, node)
    return None


def path_to_leaf(tree: Nodes, statement: str) -> tuple[Node, ...] | None:
    """The nodes from the root to the leaf that executes ``statement``, the leaf included."""
    for node, path in walk(tree):
        if isinstance(node, Leaf) and node.statement == statement:
            return (*path, node)
    return None


def statements_in(nodes: Iterable[Node]) -> frozenset[str]:
    """Names of all statements executed by ``nodes``."""
    return frozenset(n.statement for n, _ in walk(tuple(nodes)) if isinstance(n, Leaf))


def replace_loop(tree: Nodes, var: Var, change: Callable[[Loop], Nodes]) -> Nodes:
    """The tree with the loop over ``var`` replaced by the nodes that ``change`` makes of it."""
    result: list[Node] = []
    for node in tree:
        if isinstance(node, Loop) and node.var == var:
            result.extend(change(node))
        elif isinstance(node, Leaf):
            result.append(node)
        else:
            body = replace_loop(node.body, var, change)
            result.append(node if body is node.body else dataclasses.replace(node, body=body))
    new = tuple(result)
    return tree if len(new) == len(tree) and all(a is b for a, b in zip(new, tree, strict=True)) else new


def remove_statements(tree: Nodes, names: frozenset[str]) -> Nodes:
    """The tree without the leaves of ``names``, and without loops and allocations that this leaves empty."""
    result: list[Node] = []
    for node in tree:
        if isinstance(node, Leaf):
            if node.statement not in names:
                result.append(node)
            continue
        body = remove_statements(node.body, names)
        if body:
            result.append(dataclasses.replace(node, body=body))
    return tuple(result)


def map_leaves(tree: Nodes, change: Callable[[Leaf], Leaf]) -> Nodes:
    """The tree with each leaf replaced."""
    return tuple(
        change(n) if isinstance(n, Leaf) else dataclasses.replace(n, body=map_leaves(n.body, change)) for n in tree
    )


def substitute_loops(
    nodes: Nodes, values: Mapping[Var, Expr], ranges: Mapping[Var, Interval], guard: Expr | None = None
) -> Nodes:
    """Replace loop variables everywhere below, and add ``guard`` to every leaf.

    ``ranges`` bound the variables of enclosing loops; those of inner loops are added on the way down.
    """
    return tuple(_substitute_node(n, values, ranges, guard) for n in nodes)


def _substitute_node(
    node: Node, values: Mapping[Var, Expr], ranges: Mapping[Var, Interval], guard: Expr | None
) -> Node:
    def change(e: Dim) -> Expr:
        return simplify(substitute(wrap(e), values), ranges)

    if isinstance(node, Leaf):
        changed = [change(g) for g in node.guards]
        guards = tuple(dict.fromkeys(changed if guard is None else [*changed, guard]))
        return dataclasses.replace(node, point=tuple(map(change, node.point)), guards=guards)
    if isinstance(node, Loop):
        extent = as_dim(change(node.extent))
        inner = {**ranges, node.var: loop_range(extent, ranges)}
        return dataclasses.replace(node, extent=extent, body=substitute_loops(node.body, values, inner, guard))
    origin = tuple(map(change, node.origin))
    return dataclasses.replace(node, origin=origin, body=substitute_loops(node.body, values, ranges, guard))


def as_dim(e: Dim) -> Dim:
    """A constant expression as an int."""
    known = bounds(wrap(e), {})
    return known[0] if known[0] is not None and known[0] == known[1] else e


def loop_range(extent: Dim, ranges: Mapping[Var, Interval]) -> Interval:
    """Inclusive bounds of a loop variable, given those of the variables and sizes in its extent."""
    high = bounds(wrap(extent), ranges)[1]
    return (0, None if high is None else max(high - 1, 0))


def ranges_of_path(path: Iterable[Node], sizes: Mapping[Var, Interval]) -> dict[Var, Interval]:
    """Inclusive bounds of the variables of all loops on ``path``, outermost first, and of the size parameters."""
    ranges = dict(sizes)
    for node in path:
        if isinstance(node, Loop):
            ranges[node.var] = loop_range(node.extent, ranges)
    return ranges


def loop_names(tree: Nodes) -> frozenset[str]:
    """Names of all loop variables in use."""
    return frozenset(n.var.name for n, _ in walk(tree) if isinstance(n, Loop))


def uses(nodes: Iterable[Node], variables: frozenset[Var]) -> bool:
    """Whether an extent, origin, point or guard below depends on one of ``variables``."""
    for node, _ in walk(tuple(nodes)):
        if isinstance(node, Leaf):
            expressions: tuple[Dim, ...] = (*node.point, *node.guards)
        elif isinstance(node, Loop):
            expressions = (node.extent,)
        else:
            assert isinstance(node, Allocate)
            expressions = (*node.origin, *node.shape)
        if any(free_vars(wrap(e)) & variables for e in expressions):
            return True
    return False
