"""A loop's name misspelt."""

from __future__ import annotations

from mistakes import refuses, table

from polycomp.errors import UnknownLoopError


def test_loop_misspelt() -> None:
    s = table()
    message = "there is no loop 'jj'; the loops are 'i', 'j'; did you mean 'j'?"
    with refuses(s, UnknownLoopError, message):
        s.fuse("i", "jj")
