"""A stage in a loop that runs less often than its own."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import ExtentError


def test_compute_with_extent() -> None:
    s = neighbours()
    message = (
        "compute_with of 'y': loop 'i' runs 10 times and loop 'i2' 8 times; loops that are merged run equally often"
    )
    with refuses(s, ExtentError, message):
        s.compute_with("y", "i2")
