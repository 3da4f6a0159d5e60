"""Two tensors of one name."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ScheduleError


def test_te_same_name() -> None:
    x = pc.placeholder((8,), name="x")
    y = pc.compute((8,), lambda i: x[i] * 2.0, "y")
    z = pc.compute((8,), lambda i: y[i] + 1.0, "y")
    message = "two tensors are named 'y'; give each tensor its own name"
    with fails(ScheduleError, message):
        pc.Schedule(z)
