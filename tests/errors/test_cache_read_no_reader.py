"""A copy for a tensor that does not read the original."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import UnknownTensorError


def test_cache_read_no_reader() -> None:
    s = neighbours()
    message = "cache_read: 'z' does not read 'x'"
    with refuses(s, UnknownTensorError, message):
        s.cache_read("x", "z")
