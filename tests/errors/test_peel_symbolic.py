"""A loop of symbolic extent peeled."""

from __future__ import annotations

from mistakes import doubled, refuses

import polycomp as pc
from polycomp.errors import ExtentError


def test_peel_symbolic() -> None:
    s = doubled(pc.size("n"))
    message = "peel of loop 'i' needs a constant extent, not n"
    with refuses(s, ExtentError, message):
        s.peel("i", 1)
