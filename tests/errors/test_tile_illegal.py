"""Tiles of a stencil in time and space without a skew."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import IllegalScheduleError


def test_tile_illegal() -> None:
    s = stencil()
    message = (
        "tile(('t', 2), ('i', 4)) is illegal: u[t=1, i=3] reads u[0, 4] before u[0, 4] is written by "
        "u[t=0, i=4]. What helps: skew('t', 'i', 1) first; or keep 't' outside of the loops along 'i'"
    )
    with refuses(s, IllegalScheduleError, message):
        s.tile(("t", 2), ("i", 4))
