"""A copy in tiles of no elements."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import FactorError


def test_cache_read_tile() -> None:
    s = product()
    message = "cache_read: a tile needs a positive int as factor, not 0"
    with refuses(s, FactorError, message):
        s.cache_read("b", "c", {1: 0})
