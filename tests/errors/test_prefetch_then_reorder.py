"""A prefetch in a loop that leaves the loop whose iterations it counts."""

from __future__ import annotations

from mistakes import refuses, table

from polycomp.errors import NestingError


def test_prefetch_then_reorder() -> None:
    s = table()
    s.prefetch("x", "j", 1, around="i")
    message = (
        "reorder('j', 'i') would leave a prefetch of 'x' in loop 'j' that is not inside of loop 'i' any more; "
        "prefetch after it"
    )
    with refuses(s, NestingError, message):
        s.reorder("j", "i")
