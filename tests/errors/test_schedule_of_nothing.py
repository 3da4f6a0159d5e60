"""A schedule of no tensors."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ScheduleError


def test_schedule_of_nothing() -> None:
    message = "a schedule needs at least one tensor to compute"
    with fails(ScheduleError, message):
        pc.Schedule([])
