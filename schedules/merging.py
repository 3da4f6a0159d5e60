"""Two nests of loops become one: a stage is computed in the loops of another (Halide's ``compute_with``)."""

from __future__ import annotations

import dataclasses
import itertools

from polycomp.errors import ExtentError, NestingError, PlacementError
from polycomp.expr import Expr, Var, simplify, substitute, wrap
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Loop, Node
from polycomp.schedules import stages
from polycomp.schedules.handles import quoted
from polycomp.schedules.notation import notation
from polycomp.schedules.placement import before_first
from polycomp.schedules.rewrite import (
    Nodes,
    path_to_leaf,
    path_to_loop,
    ranges_of_path,
    remove_statements,
    replace_loop,
    statements_in,
    substitute_loops,
)
from polycomp.te import Tensor


def compute_with(kernel: Kernel, tensor: Tensor, loop: Var) -> Kernel:
    """Merge the outer loops of ``tensor`` with those down to ``loop``; see ``Schedule.compute_with``."""
    found = stages.statements_for(kernel, tensor)
    own = frozenset(s.name for s in found)
    path, other = path_to_leaf(kernel.tree, found[-1].name), path_to_loop(kernel.tree, loop)
    assert path is not None
    assert other is not None
    depth = _parting(path, other)
    if loop in [n.var for n in path if isinstance(n, Loop)]:
        raise PlacementError(f"compute_with of {tensor.name!r}: it is computed inside of loop {loop.name!r} already")
    target = [n for n in other[depth:] if isinstance(n, Loop)]
    nest = _perfect_nest(path[depth:], len(target), tensor, loop, own)
    values = _same_iterations(nest, target, tensor)
    ranges = ranges_of_path(other, kernel.ranges)
    body = substitute_loops(nest[-1].body, values, ranges)
    using = frozenset(s.name for s in kernel.statements.values() if stages.reads(s, tensor) and s.tensor is not tensor)
    tree = remove_statements(kernel.tree, own)

    def insert(old: Loop) -> Nodes:
        read_here = statements_in(old.body) & using
        inside = before_first(old.body, using, body) if read_here else (*old.body, *body)
        return (dataclasses.replace(old, body=inside),)

    return dataclasses.replace(kernel, tree=replace_loop(tree, loop, insert))


def _parting(path: tuple[Node, ...], other: tuple[Node, ...]) -> int:
    """How many nodes two paths have in common."""
    pairs = zip(path, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a is not b), min(len(path), len(other)))


def _perfect_nest(path: tuple[Node, ...], count: int, tensor: Tensor, loop: Var, own: frozenset[str]) -> list[Loop]:
    """The first ``count`` nodes of a path, which must be loops around nothing but one another and the tensor."""
    nest = [n for n in path[:count] if isinstance(n, Loop)]
    if len(nest) < count:
        raise NestingError(
            f"compute_with of {tensor.name!r}: merging down to loop {loop.name!r} takes {count} loops, but "
            f"{tensor.name!r} has {len(nest)} that can be merged"
        )
    for outer, inner in itertools.pairwise(nest):
        if outer.body != (inner,):
            raise NestingError(
                f"compute_with of {tensor.name!r}: loop {inner.var.name!r} is not the only thing inside of loop "
                f"{outer.var.name!r}, so that it cannot be merged"
            )
    others = sorted(statements_in(nest[:1]) - own)
    if others:
        raise NestingError(
            f"compute_with of {tensor.name!r}: its loop {nest[0].var.name!r} computes {quoted(others)} as well"
        )
    return nest


def _same_iterations(nest: list[Loop], target: list[Loop], tensor: Tensor) -> dict[Var, Expr]:
    """The loop that each loop of ``nest`` becomes. Raises :class:`ExtentError` when one runs differently often."""
    values: dict[Var, Expr] = {}
    for mine, theirs in zip(nest, target, strict=True):
        extent = simplify(substitute(wrap(mine.extent), values))
        if extent != simplify(wrap(theirs.extent)):
            raise ExtentError(
                f"compute_with of {tensor.name!r}: loop {mine.var.name!r} runs {notation(extent)} times and loop "
                f"{theirs.var.name!r} {notation(wrap(theirs.extent))} times; loops that are merged run equally often"
            )
        values[mine.var] = theirs.var
    return values
