"""A prefetch for a loop that is not around the one that asks."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import NestingError


def test_prefetch_around() -> None:
    s = doubled()
    message = "prefetch of 'x': loop 'i' is not around 'i'"
    with refuses(s, NestingError, message):
        s.prefetch("x", "i", 1, around="i")
