"""Partial results of something that is no reduction."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import PlacementError


def test_rfactor_no_reduction() -> None:
    s = doubled()
    message = "rfactor of 'y': it is not a reduction"
    with refuses(s, PlacementError, message):
        s.rfactor("y", 0, 4)
