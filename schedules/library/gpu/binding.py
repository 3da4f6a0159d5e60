"""Loops as thread blocks and threads: what all schedules for GPUs share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polycomp.expr import bounds, wrap
from polycomp.schedules.library.analysis import constant
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Dim

WARP = 32
"""Threads that execute together."""

MOST_THREADS = 1024
"""Of a block."""

UNROLLED = 64
"""Iterations, all loops together, that become straight-line code."""

_AT_ONCE = (8, 7, 6, 5, 4)  # iterations of a long loop that are unrolled, if its number of iterations is a multiple

_BLOCK = 256  # threads, where there is work for many blocks


def flattened(schedule: Schedule, loops: Sequence[LoopRef]) -> list[LoopRef]:
    """``loops`` with the inner ones fused, as far as their extents are known: the last is the fused one."""
    *outer, last = loops
    while outer and constant(schedule.extent(last)) is not None:
        last = schedule.fuse(outer.pop(), last)
    return [*outer, last]


def bind_blocks(schedule: Schedule, loops: Sequence[LoopRef]) -> None:
    """Make the iterations of ``loops`` blocks."""
    for loop in loops:
        schedule.bind(loop, "block")


def share_out(schedule: Schedule, loops: Sequence[LoopRef], threads: int) -> LoopRef:
    """Share the iterations of ``loops`` out to blocks of ``threads``; returns the loop over threads."""
    *outer, last = flattened(schedule, loops)
    blocks, thread = schedule.split(last, threads)
    bind_blocks(schedule, [*outer, blocks])
    schedule.bind(thread, "thread")
    return thread


def block_size(items: int | None, target: Target) -> int:
    """Threads of a block for so many items, one for each thread: with few items smaller, so that all multiprocessors
    have some."""
    if items is None:
        return _BLOCK
    size = _BLOCK
    while size > 2 * WARP and -(-items // size) < target.cores:
        size //= 2
    return size


def block_sizes() -> list[int]:
    """What a block's threads may be."""
    return [64, 128, 256, 512]


def unroll(schedule: Schedule, loops: Sequence[LoopRef]) -> None:
    """Unroll ``loops``, which lie in one another, if they are short; else some iterations of the last, whose loads are
    then on their way at the same time."""
    extents = [constant(schedule.extent(loop)) for loop in loops]
    if math.prod(UNROLLED + 1 if n is None else n for n in extents) <= UNROLLED:
        for loop in loops:
            schedule.unroll(loop)
        return
    last = extents[-1] if extents else None
    steps = [n for n in _AT_ONCE if last is not None and last % n == 0]
    if steps and last:
        schedule.unroll(schedule.split(loops[-1], steps[0])[1])


def upper_bound(schedule: Schedule, size: Dim) -> int | None:
    """The most that ``size`` may be, if that is known."""
    return bounds(wrap(size), schedule.kernel.ranges)[1]


def largest_power(limit: int) -> int:
    """The largest power of two up to ``limit``, which is at least 1."""
    return 1 << (limit.bit_length() - 1)
