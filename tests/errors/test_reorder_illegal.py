"""A reorder that would read values before they are made."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import IllegalScheduleError


def test_reorder_illegal() -> None:
    s = stencil()
    message = (
        "reorder('i', 't') is illegal: u[t=1, i=1] reads u[0, 2] before u[0, 2] is written by u[t=0, "
        "i=2]. What helps: skew('t', 'i', 1) first; or keep 't' outside of the loops along 'i'"
    )
    with refuses(s, IllegalScheduleError, message):
        s.reorder("i", "t")
