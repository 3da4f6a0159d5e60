"""A handle on a loop that has been skewed."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import StaleLoopError


def test_loop_after_skew() -> None:
    s = stencil()
    t, i = s["u"].loops
    s.skew(t, i)
    message = "there is no loop 'i' any more: skew('t', 'i') replaced it; it became 'is'"
    with refuses(s, StaleLoopError, message):
        s.split(i, 2)
