"""A prefetch in a loop of a stage that is then computed elsewhere, and one of a tensor that is computed nowhere."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import NestingError


def test_prefetch_then_inline() -> None:
    s = neighbours()
    s.prefetch("x", "i", 4)
    message = "compute_inline('y') would drop the prefetch of 'x' in loop 'i'; prefetch after it"
    with refuses(s, NestingError, message):
        s.compute_inline("y")


def test_prefetch_of_what_is_inlined_then() -> None:
    s = neighbours()
    s.prefetch("y", "i2", 4)
    message = (
        "compute_inline('y') would leave a prefetch of 'y' in loop 'i2' where that tensor is not in memory; "
        "prefetch after it"
    )
    with refuses(s, NestingError, message):
        s.compute_inline("y")
