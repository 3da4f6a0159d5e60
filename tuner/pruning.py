"""Formulas that tell hopeless schedules before any code is made of them."""

from __future__ import annotations

import math

from polycomp.errors import HopelessScheduleError
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope
from polycomp.schedules import Schedule
from polycomp.target import Target

MOST_COPIES = 4096
"""Copies of one statement that unrolled loops make, in vectors: more take seconds to compile."""

_SPILLED = 1.25
"""Tiles of up to so many times the vector registers are compiled: what spills may be used rarely."""


def check_resources(schedule: Schedule, target: Target) -> None:
    """Raise :class:`HopelessScheduleError` for more accumulators than registers, unrolled code without end, or private
    scratch memory that the core's own caches do not hold."""
    for node in schedule.kernel.tree:
        _check(node, target, 1, False)


def _check(node: Node, target: Target, copies: int, shared: bool) -> None:
    """``copies`` of ``node`` are made by unrolled loops; ``shared`` when it is inside a parallel loop."""
    if isinstance(node, Leaf):
        if copies > MOST_COPIES:
            raise HopelessScheduleError(f"unrolling makes {copies} copies of {node.statement}")
        return
    if isinstance(node, Loop):
        copies *= _copies(node, target)
        shared = shared or node.kind is LoopKind.PARALLEL
    else:
        _check_memory(node, target, shared)
    for inner in node.body:
        _check(inner, target, copies, shared)


def _copies(loop: Loop, target: Target) -> int:
    extent = loop.extent if isinstance(loop.extent, int) else 1
    if loop.kind is LoopKind.UNROLL:
        return extent
    return -(-extent // target.lanes(4)) if loop.kind is LoopKind.VECTOR else 1


def _check_memory(node: Allocate, target: Target, shared: bool) -> None:
    sizes = [n for n in node.stored_shape if isinstance(n, int)]
    if len(sizes) < len(node.stored_shape):
        return
    size = math.prod(sizes) * node.tensor.dtype.bytes
    if node.scope is Scope.REGISTER and size > _SPILLED * target.vector_registers * target.vector_bytes:
        raise HopelessScheduleError(f"{node.tensor.name} takes {size // target.vector_bytes} registers")
    if node.scope is Scope.WORKSPACE and shared and size > max(2 * target.l2_bytes, target.l3_bytes // target.cores):
        raise HopelessScheduleError(f"{node.tensor.name} takes {size} bytes of each thread")
