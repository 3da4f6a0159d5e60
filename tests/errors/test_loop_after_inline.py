"""A handle on a loop of a tensor that has been inlined."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import StaleLoopError


def test_loop_after_inline() -> None:
    s = neighbours()
    (i,) = s["y"].loops
    s.compute_inline("y")
    message = "there is no loop 'i' any more: compute_inline('y') replaced it"
    with refuses(s, StaleLoopError, message):
        s.split(i, 2)
