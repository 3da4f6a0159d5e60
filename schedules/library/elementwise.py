"""Schedules for elementwise and data-movement stages: vectors along memory, threads along the rest."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import loads
from polycomp.schedules.library.analysis import constant, depends_on
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Axis, Dim, Tensor

_ENOUGH_ITERATIONS = 64  # to share out, so that the shares are about equal
_ITERATIONS = (4, 16, _ENOUGH_ITERATIONS, 256)  # how many may be asked for

PARALLEL_ELEMENTS = 16384
"""Below this many elements a kernel is over before a second thread has woken up."""


def schedule_elementwise(schedule: Schedule, tensor: Tensor, target: Target) -> None:
    """Vectorise the innermost loop of ``tensor``'s stage and share the outer ones out to the threads."""
    loops = schedule[tensor].loops
    if not loops:
        return
    outer = vectorize_innermost(schedule, loops, lanes_for(tensor, target, along=tensor.axes[-1]))
    if is_large(tensor.shape):
        parallelize(schedule, outer, target)


def lanes_for(tensor: Tensor, target: Target, along: Axis | None = None) -> int:
    """Lanes that fit the widest element type that ``tensor``'s definition touches; of which it has vectors ``along`` an
    axis, if one is given: what does not depend on it, as the number of the row that a gather reads, is a scalar."""
    found = loads(tensor.body) if tensor.body is not None else ()
    wide = [x for x in found if along is None or any(depends_on(i, along) for i in x.indices)]
    return target.lanes(max([tensor.dtype.bytes, *(x.source.dtype.bytes for x in wide), 4]))


def vectorize_innermost(schedule: Schedule, loops: Sequence[LoopRef], lanes: int) -> tuple[LoopRef, ...]:
    """Make the innermost loop vectors; returns the loops outside of it."""
    *outer, last = loops
    extent = constant(schedule.extent(last))
    if extent is not None and extent <= 2 * lanes:
        schedule.vectorize(last)
        return tuple(outer)
    blocks, inner = schedule.split(last, lanes)
    schedule.vectorize(inner)
    return (*outer, blocks)


def is_large(shape: Sequence[Dim]) -> bool:
    """Whether a tensor is worth several threads; one of symbolic size is taken to be."""
    total = 1
    for dim in shape:
        known = constant(dim)
        if known is None:
            return True
        total *= known
    return total >= PARALLEL_ELEMENTS


def parallelize(schedule: Schedule, loops: Sequence[LoopRef], target: Target) -> LoopRef | None:
    """Fuse loops from the outside until there are enough iterations to share out, and run them in parallel."""
    if not loops:
        return None
    outer, rest = loops[0], list(loops[1:])
    possible = _ITERATIONS if target.cores > 1 else (_ENOUGH_ITERATIONS,)
    enough = schedule.decide(f"{outer.name}.parallel_iterations", _ENOUGH_ITERATIONS, possible)
    while rest and constant(schedule.extent(rest[0])) is not None:
        count = constant(schedule.extent(outer))
        if count is not None and count >= enough:
            break
        outer = schedule.fuse(outer, rest.pop(0))
    schedule.parallel(outer)
    return outer
