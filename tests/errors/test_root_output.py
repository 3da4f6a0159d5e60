"""compute_root of an output."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import PlacementError


def test_root_output() -> None:
    s = doubled()
    message = "compute_root of 'y': it is an output and is stored whole already"
    with refuses(s, PlacementError, message):
        s.compute_root("y")
