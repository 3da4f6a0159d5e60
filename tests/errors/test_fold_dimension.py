"""A fold of a dimension that there is not."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import FactorError


def test_fold_dimension() -> None:
    s = last_step()
    message = "fold_storage: 'u' has 2 dimensions, there is no dimension 2"
    with refuses(s, FactorError, message):
        s.fold_storage("u", 2, 2)
