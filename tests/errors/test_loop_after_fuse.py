"""A handle on a loop that has been fused."""

from __future__ import annotations

from mistakes import refuses, table

from polycomp.errors import StaleLoopError


def test_loop_after_fuse() -> None:
    s = table()
    i, j = s["t"].loops
    s.fuse(i, j)
    message = "there is no loop 'i' any more: fuse('i', 'j') replaced it; it became 'i.j'"
    with refuses(s, StaleLoopError, message):
        s.parallel(i)
