"""An input stored in registers."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import PlacementError


def test_scope_of_an_input() -> None:
    s = neighbours()
    message = "set_scope of 'x': it is an argument; tensors stored here are 'y'"
    with refuses(s, PlacementError, message):
        s.set_scope("x", "register")
