"""A split by something that is no number."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_split_by_text() -> None:
    s = doubled()
    message = "split of loop 'i' needs a positive int as factor, not '4'"
    with refuses(s, FactorError, message):
        s.split("i", "4")
