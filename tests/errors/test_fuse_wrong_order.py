"""A fuse of loops from the inside out."""

from __future__ import annotations

from mistakes import refuses, table

from polycomp.errors import NestingError


def test_fuse_wrong_order() -> None:
    s = table()
    message = "fuse needs loop 'i' to be the only thing inside of loop 'j'"
    with refuses(s, NestingError, message):
        s.fuse("j", "i")
