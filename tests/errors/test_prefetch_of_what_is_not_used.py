"""A prefetch of a tensor in a loop that does not use it."""

from __future__ import annotations

from mistakes import refuses, table

from polycomp.errors import NestingError


def test_prefetch_of_what_is_not_used() -> None:
    s = table()
    s.cache_read("x", "t")
    message = (
        "prefetch('x', 'i', 1) would leave a prefetch of 'x' in loop 'i', but no statement in loop 'i' reads or "
        "writes 'x'; prefetch it where it is used"
    )
    with refuses(s, NestingError, message):
        s.prefetch("x", s["t"].loops[0], 1)
