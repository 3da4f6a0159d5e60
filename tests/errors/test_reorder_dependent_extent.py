"""A reorder of a shortened loop out of the loop that shortens it."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import NestingError


def test_reorder_dependent_extent() -> None:
    s = doubled()
    s.split("i", 4, tail="shrink")
    message = "reorder: the extent of loop 'ii' depends on 'io', which must stay outside"
    with refuses(s, NestingError, message):
        s.reorder("ii", "io")
