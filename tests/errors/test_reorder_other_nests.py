"""A reorder of loops of different nests."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import NestingError


def test_reorder_other_nests() -> None:
    s = neighbours()
    message = "reorder needs loops that are nested in one another, which 'i', 'i2' are not"
    with refuses(s, NestingError, message):
        s.reorder("i", "i2")
