"""A skew by nothing."""

from __future__ import annotations

from mistakes import refuses, stencil

from polycomp.errors import FactorError


def test_skew_by_zero() -> None:
    s = stencil()
    message = "skew of loop 'i' needs an int other than 0 as factor, not 0"
    with refuses(s, FactorError, message):
        s.skew("t", "i", 0)
