"""A fuse of loops with an initialisation between them."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import NestingError


def test_fuse_with_something_between() -> None:
    s = product()
    message = "fuse needs loop 'k' to be the only thing inside of loop 'j'"
    with refuses(s, NestingError, message):
        s.fuse("j", "k")
