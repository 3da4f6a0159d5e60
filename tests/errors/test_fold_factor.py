"""A fold that keeps nothing."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import FactorError


def test_fold_factor() -> None:
    s = last_step()
    message = "fold_storage of 'u' needs a positive int as factor, not 0"
    with refuses(s, FactorError, message):
        s.fold_storage("u", 0, 0)
