"""A stage whose loops have something between them."""

from __future__ import annotations

from mistakes import normalised, refuses

from polycomp.errors import NestingError


def test_compute_with_between() -> None:
    s = normalised()
    message = "compute_with of 'total': loop 'k' is not the only thing inside of loop 'i', so that it cannot be merged"
    with refuses(s, NestingError, message):
        s.compute_with("total", "j")
