"""Rewrites of single loops that change which iterations they have: padding, skewing, peeling."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.errors import ExtentError, FactorError, NestingError
from polycomp.expr import Expr, Interval, Var, compare, const, free_vars, prove, simplify, wrap
from polycomp.poly.tree import Leaf, Loop, Node, walk
from polycomp.schedules import stages
from polycomp.schedules.hints import counting, with_hints_around
from polycomp.schedules.notation import notation
from polycomp.schedules.rewrite import Nodes, as_dim, loop_range, path_to_loop, replace_loop, substitute_loops

Ranges = Mapping[Var, Interval]


def padded(loop: Loop, multiple: int, ranges: Ranges) -> Nodes:
    """The loop with its extent rounded up to a multiple; iterations beyond the old extent do nothing."""
    extent = as_dim(simplify((wrap(loop.extent) + (multiple - 1)) // multiple * multiple, ranges))
    if simplify(wrap(loop.extent) % multiple, ranges) == const(0):
        return (loop,)
    inner = {**ranges, loop.var: loop_range(extent, ranges)}
    guard = simplify(compare("lt", loop.var, loop.extent), inner)
    body = substitute_loops(loop.body, {}, inner, guard)
    return (dataclasses.replace(loop, extent=extent, body=body),)


def skewed(outer: Loop, inner: Var, factor: int, new: Var, ranges: Ranges) -> Nodes:
    """``outer`` with the loop ``inner`` inside of it replaced by one over ``inner + factor * outer``.

    The new loop runs over all values that the sum takes, so that its extent depends on no loop; guards leave out the
    iterations that the old one did not have.
    """
    path = path_to_loop((outer,), inner)
    if path is None or len(path) < 2:
        raise NestingError(f"skew needs loop {inner.name!r} to be inside of loop {outer.var.name!r}")
    between = {n.var for n in path if isinstance(n, Loop)}
    node = path[-1]
    assert isinstance(node, Loop)
    if not isinstance(node.extent, int) and free_vars(node.extent) & between:
        raise ExtentError(
            f"skew of loop {inner.name!r}: its extent {notation(node.extent)} depends on the loops around it"
        )
    distance: Expr = outer.var * factor if factor > 0 else (wrap(outer.extent) - 1 - outer.var) * -factor
    extent = as_dim(simplify(wrap(node.extent) + (wrap(outer.extent) - 1) * abs(factor), ranges))
    inside = {**ranges, outer.var: loop_range(outer.extent, ranges), new: loop_range(extent, ranges)}

    def change(loop: Loop) -> Nodes:
        value = simplify(new - distance, inside)
        body = loop.body
        for guard in (compare("ge", value, 0), compare("lt", value, loop.extent)):
            body = substitute_loops(body, {}, inside, simplify(guard, inside))
        body = with_hints_around(substitute_loops(body, {loop.var: value}, inside), loop.var, counting(new))
        return (dataclasses.replace(loop, var=new, extent=extent, body=body),)

    return replace_loop((outer,), inner, change)


def peeled(loop: Loop, count: int, first: bool, ranges: Ranges, taken: set[str]) -> Nodes:
    """The loop without its first or last ``count`` iterations, and those as a loop of their own beside it."""
    if not isinstance(loop.extent, int):
        raise ExtentError(f"peel of loop {loop.var.name!r} needs a constant extent, not {loop.extent}")
    if count >= loop.extent:
        raise FactorError(
            f"peel of loop {loop.var.name!r}: it has {loop.extent} iterations, so {count} cannot be cut off"
        )
    cut = count if first else loop.extent - count
    head = _part(loop, 0, cut, ranges, taken, keep=not first)
    tail = _part(loop, cut, loop.extent - cut, ranges, taken, keep=first)
    return (head, tail)


def _part(loop: Loop, start: int, extent: int, ranges: Ranges, taken: set[str], keep: bool) -> Loop:
    """The iterations from ``start`` on; all loops get new names unless this part is to ``keep`` them."""
    var = loop.var if keep else Var(stages.fresh_name(f"{loop.var.name}p", taken))
    inner = {**ranges, var: loop_range(extent, ranges)}
    body = substitute_loops(loop.body, {loop.var: simplify(var + start, inner)}, inner)
    body = with_hints_around(_without_decided_guards(body, inner), loop.var, counting(var))
    return dataclasses.replace(loop, var=var, extent=extent, body=body if keep else renamed(body, taken))


def _without_decided_guards(nodes: Nodes, ranges: Ranges) -> Nodes:
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, Loop):
            inner = {**ranges, node.var: loop_range(node.extent, ranges)}
            result.append(dataclasses.replace(node, body=_without_decided_guards(node.body, inner)))
        elif isinstance(node, Leaf):
            guards = tuple(g for g in node.guards if prove(g, ranges) is not True)
            result.append(dataclasses.replace(node, guards=guards))
        else:
            result.append(dataclasses.replace(node, body=_without_decided_guards(node.body, ranges)))
    return tuple(result)


def renamed(nodes: Nodes, taken: set[str]) -> Nodes:
    """A copy of ``nodes`` whose loops have variables of their own."""
    fresh = {n.var: Var(stages.fresh_name(n.var.name, taken)) for n, _ in walk(nodes) if isinstance(n, Loop)}
    copy = _with_variables(substitute_loops(nodes, fresh, {}), fresh)
    for old, new in fresh.items():
        copy = with_hints_around(copy, old, counting(new))
    return copy


def _with_variables(nodes: Nodes, fresh: Mapping[Var, Var]) -> Nodes:
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, Loop):
            node = dataclasses.replace(node, var=fresh[node.var], body=_with_variables(node.body, fresh))
        elif not isinstance(node, Leaf):
            node = dataclasses.replace(node, body=_with_variables(node.body, fresh))
        result.append(node)
    return tuple(result)
