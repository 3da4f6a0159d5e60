"""A prefetch of what is being read now."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_prefetch_distance() -> None:
    s = doubled()
    message = "prefetch of 'x' needs a positive int as distance, not 0"
    with refuses(s, FactorError, message):
        s.prefetch("x", "i", 0)
