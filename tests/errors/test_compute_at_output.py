"""A kernel's output computed inside of another loop."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import PlacementError


def test_compute_at_output() -> None:
    s = neighbours()
    message = "compute_at of 'z': it is an output of the kernel and must be stored whole"
    with refuses(s, PlacementError, message):
        s.compute_at("z", "i")
