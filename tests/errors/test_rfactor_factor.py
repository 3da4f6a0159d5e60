"""No partial results."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import FactorError


def test_rfactor_factor() -> None:
    s = product()
    message = "rfactor needs a positive int as factor, not 0"
    with refuses(s, FactorError, message):
        s.rfactor("c", 0, 0)
