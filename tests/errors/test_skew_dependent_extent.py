"""A skew of a loop whose end depends on the other."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import ExtentError


def test_skew_dependent_extent() -> None:
    s = doubled()
    s.split("i", 4, tail="shrink")
    message = "skew of loop 'ii': its extent min(0 - io*4 + 10, 4) depends on the loops around it"
    with refuses(s, ExtentError, message):
        s.skew("io", "ii")
