"""A skew of an outer loop by an inner one."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import NestingError


def test_skew_not_nested() -> None:
    s = stencil()
    message = "skew needs loop 't' to be inside of loop 'i'"
    with refuses(s, NestingError, message):
        s.skew("i", "t")
