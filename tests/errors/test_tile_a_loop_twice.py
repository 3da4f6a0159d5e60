"""A loop tiled twice at once."""

from __future__ import annotations

from mistakes import refuses, table

from polycomp.errors import NestingError


def test_tile_a_loop_twice() -> None:
    s = table()
    message = "tile was given a loop twice: 'i', 'i'"
    with refuses(s, NestingError, message):
        s.tile(("i", 2), ("i", 2))
