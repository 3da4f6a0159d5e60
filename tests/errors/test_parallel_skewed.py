"""A parallel loop over skewed tiles."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import IllegalScheduleError


def test_parallel_skewed() -> None:
    s = stencil()
    s.skew("t", "i")
    s.split("is", 4)
    s.reorder("iso", "t", "isi")
    message = (
        "parallel('iso') is illegal: different iterations of the parallel loop iso touch u[0, 2]: "
        "u[t=0, i=2] writes it and u[t=1, i=3] reads it. What helps: parallel('isi') is legal"
    )
    with refuses(s, IllegalScheduleError, message):
        s.parallel("iso")
