"""Schedules of recurrences for GPUs: steps of time one after the other, independent elements in threads."""

from __future__ import annotations

from polycomp.expr import loads
from polycomp.schedules.library.gpu.binding import share_out
from polycomp.schedules.schedule import Schedule
from polycomp.te import Tensor

_BLOCK = 64  # threads that need nothing of each other
_WIDE = 256  # threads of the block that makes all of a step


def schedule_recurrence(schedule: Schedule, tensor: Tensor) -> None:
    """Schedule ``tensor``, whose first axis are the steps.

    Elements that are made of the same element of the step before are one thread's work, in all steps. Where others of
    that step are needed as well, one block makes each step, and its threads wait for each other.
    """
    step, *others = schedule[tensor].loops[: tensor.rank]
    if not others:
        return
    if _is_independent(tensor):
        schedule.reorder(*others, step)
        share_out(schedule, others, _BLOCK)
        return
    *rest, last = others
    rounds, thread = schedule.split(last, _WIDE)
    schedule.reorder(step, thread, *rest, rounds)
    schedule.bind(thread, "thread")


def _is_independent(tensor: Tensor) -> bool:
    assert tensor.body is not None
    own = [x for x in loads(tensor.body) if x.source is tensor]
    return all(x.indices[1:] == tensor.axes[1:] for x in own)
