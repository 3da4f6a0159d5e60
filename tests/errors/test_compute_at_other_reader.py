"""A tensor computed inside of a loop while another loop reads it."""

from __future__ import annotations

from mistakes import refuses, two_readers

from polycomp.errors import PlacementError


def test_compute_at_other_reader() -> None:
    s = two_readers()
    message = "compute_at of 'y' inside of loop 'i2': 'w' reads it outside of that loop"
    with refuses(s, PlacementError, message):
        s.compute_at("y", "i2")
