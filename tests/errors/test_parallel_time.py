"""A parallel loop of time."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import IllegalScheduleError


def test_parallel_time() -> None:
    s = stencil()
    message = (
        "parallel('t') is illegal: different iterations of the parallel loop t touch u[0, 0]: u[t=0, "
        "i=0] writes it and u[t=1, i=1] reads it. What helps: parallel('i') is legal"
    )
    with refuses(s, IllegalScheduleError, message):
        s.parallel("t")
