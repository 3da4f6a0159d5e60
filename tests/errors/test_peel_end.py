"""An end that there is not."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_peel_end() -> None:
    s = doubled()
    message = "peel of loop 'i': end is 'first' or 'last', not 'middle'"
    with refuses(s, FactorError, message):
        s.peel("i", 1, end="middle")
