"""A stage in its own loop."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import PlacementError


def test_compute_with_own_loop() -> None:
    s = doubled()
    message = "compute_with of 'y': it is computed inside of loop 'i' already"
    with refuses(s, PlacementError, message):
        s.compute_with("y", "i")
