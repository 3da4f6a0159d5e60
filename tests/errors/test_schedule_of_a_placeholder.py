"""A schedule of an input."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ScheduleError


def test_schedule_of_a_placeholder() -> None:
    message = "'x' is a placeholder: there is nothing to compute"
    with fails(ScheduleError, message):
        pc.Schedule(pc.placeholder((8,), name="x"))
