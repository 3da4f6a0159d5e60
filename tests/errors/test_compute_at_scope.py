"""A scope that there is not."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import FactorError


def test_compute_at_scope() -> None:
    s = neighbours()
    message = "a scope is 'workspace', 'register' or 'shared', not 'global'"
    with refuses(s, FactorError, message):
        s.compute_at("y", "i2", scope="global")
