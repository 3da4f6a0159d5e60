"""A copy in tiles of a dimension that there is not."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import FactorError


def test_cache_read_dimension() -> None:
    s = product()
    message = "cache_read: 'b' has 2 dimensions, there is no dimension 2"
    with refuses(s, FactorError, message):
        s.cache_read("b", "c", {2: 16})
