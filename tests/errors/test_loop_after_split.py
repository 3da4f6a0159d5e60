"""A handle on a loop that has been split."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import StaleLoopError


def test_loop_after_split() -> None:
    s = doubled()
    (i,) = s["y"].loops
    s.split(i, 5)
    message = "there is no loop 'i' any more: split('i', 5) replaced it; it became 'io', 'ii'"
    with refuses(s, StaleLoopError, message):
        s.vectorize(i)
