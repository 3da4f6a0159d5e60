"""More iterations peeled than there are."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_peel_too_much() -> None:
    s = doubled()
    message = "peel of loop 'i': it has 10 iterations, so 10 cannot be cut off"
    with refuses(s, FactorError, message):
        s.peel("i", 10)
