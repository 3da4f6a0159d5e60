"""A loop given by its number."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import UnknownLoopError


def test_loop_by_number() -> None:
    s = doubled()
    message = "a loop is given by its handle or its name, not by 0"
    with refuses(s, UnknownLoopError, message):
        s.split(0, 4)
