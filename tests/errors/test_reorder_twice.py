"""A loop given twice to reorder."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import NestingError


def test_reorder_twice() -> None:
    s = product()
    message = "reorder was given a loop twice: 'i', 'k', 'i'"
    with refuses(s, NestingError, message):
        s.reorder("i", "k", "i")
