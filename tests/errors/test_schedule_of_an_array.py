"""A schedule of a numpy array."""

from __future__ import annotations

from mistakes import array, fails

import polycomp as pc
from polycomp.errors import ScheduleError


def test_schedule_of_an_array() -> None:
    message = "a schedule is made of tensors, not of a ndarray"
    with fails(ScheduleError, message):
        pc.Schedule(array(3))
