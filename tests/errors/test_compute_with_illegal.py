"""A stage in the loop of one that reads it in another order."""

from __future__ import annotations

from mistakes import backwards, refuses

from polycomp.errors import IllegalScheduleError


def test_compute_with_illegal() -> None:
    s = backwards()
    message = (
        "compute_with('y', 'i2') is illegal: z[i=0] reads y[9] before y[9] is written by y[i=9]. "
        "What helps: it is legal when y is executed first, in front of the loops it belongs to"
    )
    with refuses(s, IllegalScheduleError, message):
        s.compute_with("y", "i2")
