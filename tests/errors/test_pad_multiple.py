"""A loop padded to a multiple of zero."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_pad_multiple() -> None:
    s = doubled()
    message = "pad of loop 'i' needs a positive int as multiple, not 0"
    with refuses(s, FactorError, message):
        s.pad("i", 0)
