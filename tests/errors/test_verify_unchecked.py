"""The proof of a schedule whose steps were not."""

from __future__ import annotations

from mistakes import fails, stencil

import polycomp as pc
from polycomp.errors import IllegalScheduleError


def test_verify_unchecked() -> None:
    u = stencil().tensor("u")
    s = pc.Schedule(u, check=False)
    s.reorder("i", "t")
    message = (
        "the schedule of 'u' is illegal: u[t=1, i=1] reads u[0, 2] before u[0, 2] is written by "
        "u[t=0, i=2]. What helps: skew('t', 'i', 1) first; or keep 't' outside of the loops along 'i'"
    )
    with fails(IllegalScheduleError, message):
        s.verify()
