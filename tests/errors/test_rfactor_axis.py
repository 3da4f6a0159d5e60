"""Partial results along an axis that there is not."""

from __future__ import annotations

from mistakes import product, refuses

from polycomp.errors import FactorError


def test_rfactor_axis() -> None:
    s = product()
    message = "rfactor of 'c': there is no reduction axis 1; there are 0 (k)"
    with refuses(s, FactorError, message):
        s.rfactor("c", 1, 4)
