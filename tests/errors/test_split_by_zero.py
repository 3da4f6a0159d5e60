"""A split by zero."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_split_by_zero() -> None:
    s = doubled()
    message = "split of loop 'i' needs a positive int as factor, not 0"
    with refuses(s, FactorError, message):
        s.split("i", 0)
