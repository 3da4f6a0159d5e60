"""A tensor computed inside of its own loop."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import PlacementError


def test_compute_at_own_loop() -> None:
    s = neighbours()
    message = "compute_at: there is no loop 'i' outside of 'y' itself"
    with refuses(s, PlacementError, message):
        s.compute_at("y", "i")
