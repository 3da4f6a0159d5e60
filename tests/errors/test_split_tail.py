"""A tail that there is not."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import FactorError


def test_split_tail() -> None:
    s = doubled()
    message = "split of loop 'i': tail is 'guard' or 'shrink', not 'peel'"
    with refuses(s, FactorError, message):
        s.split("i", 4, tail="peel")
