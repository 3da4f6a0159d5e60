"""A copy for an access that is not there."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import FactorError


def test_cache_read_access() -> None:
    s = product()
    message = "cache_read: 'b' has 1 accesses there, there is no access 1"
    with refuses(s, FactorError, message):
        s.cache_read("b", "c", access=1)
