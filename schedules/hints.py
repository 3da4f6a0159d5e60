"""Prefetch hints follow the loops that they are about through rewrites; a step that would lose one is refused."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator

from polycomp.errors import NestingError
from polycomp.expr import Var
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Ahead, Allocate, Leaf, Loop, Node, walk
from polycomp.schedules.rewrite import Nodes
from polycomp.schedules.stages import reads
from polycomp.schedules.trace import Step


def with_hints_around(nodes: Nodes, loop: Var, change: Callable[[Ahead], Ahead]) -> Nodes:
    """``nodes`` with every hint in them that counts iterations of ``loop`` changed."""
    return tuple(_with_hints_around(node, loop, change) for node in nodes)


def _with_hints_around(node: Node, loop: Var, change: Callable[[Ahead], Ahead]) -> Node:
    if isinstance(node, Leaf):
        return node
    body = with_hints_around(node.body, loop, change)
    if isinstance(node, Allocate):
        return dataclasses.replace(node, body=body)
    hints = tuple(change(a) if a.around == loop else a for a in node.prefetch)
    return dataclasses.replace(node, body=body, prefetch=hints)


def counting(loop: Var) -> Callable[[Ahead], Ahead]:
    """The change that lets a hint count iterations of ``loop``, of which there are as many."""
    return lambda ahead: dataclasses.replace(ahead, around=loop)


def after_split(outer: Var, inner: Var, factor: int) -> Callable[[Ahead], Ahead]:
    """The change to a hint whose iterations are those of ``inner`` now: it counts blocks of them when it looks further
    ahead than one block, because all iterations that it counts share in asking."""

    def change(ahead: Ahead) -> Ahead:
        if ahead.distance < factor:
            return dataclasses.replace(ahead, around=inner)
        return dataclasses.replace(ahead, around=outer, distance=-(-ahead.distance // factor))

    return change


def after_fusion(fused: Var, factor: int) -> Callable[[Ahead], Ahead]:
    """The change to a hint for which ``factor`` iterations of ``fused`` are one of those that it counts."""
    return lambda ahead: dataclasses.replace(ahead, around=fused, distance=ahead.distance * factor)


def fused_hints(outer: Loop, inner: Loop, factor: int) -> tuple[Ahead, ...]:
    """The hints at two loops as those at the loop that both have become; an iteration of ``outer`` is ``factor``."""
    further = [dataclasses.replace(a, distance=a.distance * factor) for a in outer.prefetch]
    own = [a if a.around != outer.var else Ahead(a.tensor, a.distance * factor) for a in inner.prefetch]
    return (*further, *own)


def check_hints(step: Step, before: Kernel, after: Kernel) -> None:
    """Raise :class:`NestingError` when ``step`` has left a hint without its own loop, the loop that it counts, the
    memory that it asks for, or anything that uses that."""
    arguments = (*after.inputs, *after.outputs)
    kept: collections.Counter[str] = collections.Counter()
    for ahead, loop, path in _hints(after.tree):
        kept[ahead.tensor.name] += 1
        what = f"{step} would leave a prefetch of {ahead.tensor.name!r} in loop {loop.var.name!r}"
        around = loop.var if ahead.around is None else ahead.around
        counted = next((n for n in (*path, loop) if isinstance(n, Loop) and n.var == around), None)
        if counted is None:
            raise NestingError(f"{what} that is not inside of loop {around.name!r} any more; prefetch after it")
        stored = any(isinstance(n, Allocate) and n.tensor is ahead.tensor for n in path)
        if not stored and not any(t is ahead.tensor for t in arguments):
            raise NestingError(f"{what} where that tensor is not in memory; prefetch after it")
        if not _is_used(ahead, counted, after):
            raise NestingError(
                f"{what}, but no statement in loop {counted.var.name!r} reads or writes {ahead.tensor.name!r}; "
                "prefetch it where it is used"
            )
    for ahead, loop, _ in _hints(before.tree):
        kept[ahead.tensor.name] -= 1
        if kept[ahead.tensor.name] < 0:
            name = ahead.tensor.name
            raise NestingError(
                f"{step} would drop the prefetch of {name!r} in loop {loop.var.name!r}; prefetch after it"
            )


def _is_used(ahead: Ahead, loop: Loop, kernel: Kernel) -> bool:
    statements = (kernel.statements[n.statement] for n, _ in walk(loop.body) if isinstance(n, Leaf))
    return any(s.tensor is ahead.tensor or reads(s, ahead.tensor) for s in statements)


def _hints(tree: Nodes) -> Iterator[tuple[Ahead, Loop, tuple[Node, ...]]]:
    """Every hint, with its loop and the nodes around that."""
    for node, path in walk(tree):
        if isinstance(node, Loop):
            yield from ((ahead, node, path) for ahead in node.prefetch)
