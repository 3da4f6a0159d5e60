"""A schedule that was never proven, and is wrong."""

from __future__ import annotations

from mistakes import fails, product

import polycomp as pc
from polycomp.errors import IllegalScheduleError


def test_build_unchecked() -> None:
    c = product().tensor("c")
    s = pc.Schedule(c, check=False)
    s.parallel("k")
    message = (
        "the schedule of 'c' is illegal: different iterations of the parallel loop k touch c[0, 0]: "
        "c.update[i=0, j=0, k=0] updates it and c.update[i=0, j=0, k=1] updates it. What helps: a "
        "loop of a reduction can be parallel only when its partial results are stored apart"
    )
    with fails(IllegalScheduleError, message):
        pc.build(s)
