"""A parallel loop of a reduction."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import IllegalScheduleError


def test_parallel_reduction() -> None:
    s = product()
    message = (
        "parallel('k') is illegal: different iterations of the parallel loop k touch c[0, 0]: "
        "c.update[i=0, j=0, k=0] updates it and c.update[i=0, j=0, k=1] updates it. What helps: "
        "parallel('i') and parallel('j') are legal; rfactor('c', ...) gives each iteration a partial "
        "result of its own"
    )
    with refuses(s, IllegalScheduleError, message):
        s.parallel("k")
