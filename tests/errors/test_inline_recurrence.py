"""A recurrence inlined."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import PlacementError


def test_inline_recurrence() -> None:
    s = last_step()
    message = "compute_inline of 'u': it is defined by elements of itself, so it is stored"
    with refuses(s, PlacementError, message):
        s.compute_inline("u")
