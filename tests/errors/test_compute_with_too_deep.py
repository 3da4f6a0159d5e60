"""A stage in more loops than it has."""

from __future__ import annotations

from mistakes import refuses, row_sums

from polycomp.errors import NestingError


def test_compute_with_too_deep() -> None:
    s = row_sums()
    message = "compute_with of 'mean': merging down to loop 'k' takes 2 loops, but 'mean' has 1 that can be merged"
    with refuses(s, NestingError, message):
        s.compute_with("mean", "k")
