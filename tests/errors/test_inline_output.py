"""A kernel's output inlined."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import PlacementError


def test_inline_output() -> None:
    s = doubled()
    message = "compute_inline of 'y': it is an output of the kernel and must be stored"
    with refuses(s, PlacementError, message):
        s.compute_inline("y")
