"""A tile of symbolic size in registers."""

from __future__ import annotations

from mistakes import refuses, row_scaled

from polycomp.errors import PlacementError


def test_compute_at_register_symbolic() -> None:
    s = row_scaled()
    message = "compute_at of 'total' in registers: its tile [1, n] is not of constant size"
    with refuses(s, PlacementError, message):
        s.compute_at("total", "i2", scope="register")
