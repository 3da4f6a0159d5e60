"""What follows a contraction at each of its points."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.schedules.library.analysis import is_reduction, reads_tensor
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.te import Axis, Tensor


def epilogue_of(tensor: Tensor, stages: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor | None:
    """The one elementwise stage that reads the contraction at its own point (axes may be permuted), or None."""
    users = [t for t in stages if tensor in t.inputs()]
    if tensor in outputs or len(users) != 1 or is_reduction(users[0]):
        return None
    points = {tuple(x.indices) for x in reads_tensor(users[0], tensor)}
    return users[0] if len(points) == 1 and set(points.pop()) == set(users[0].axes) else None


def loops_in_order(schedule: Schedule, final: Tensor, tensor: Tensor) -> list[LoopRef]:
    """The loops of the final stage in the order of the axes of the contraction ``tensor``, which it reads."""
    loops = dict(zip(final.axes, schedule[final].loops, strict=True))
    reads = reads_tensor(final, tensor)
    return [loops[i] for i in reads[0].indices if isinstance(i, Axis)] if reads else list(loops.values())


def result_and_loops(schedule: Schedule, tensor: Tensor, final: Tensor | None) -> tuple[Tensor, list[LoopRef]]:
    """Where the contraction ``tensor`` is to be computed, and the loops of the stage that reads it at its own point:
    ``final``, or else a copy."""
    result = tensor if final is not None else schedule.cache_write(tensor)
    return result, loops_in_order(schedule, final or tensor, tensor)
