"""A tensor of symbolic size in registers."""

from __future__ import annotations

from mistakes import refuses, row_scaled

from polycomp.errors import PlacementError


def test_scope_symbolic() -> None:
    s = row_scaled()
    message = "set_scope of 'total' to registers: its size [4, n] is not constant"
    with refuses(s, PlacementError, message):
        s.set_scope("total", "register")
