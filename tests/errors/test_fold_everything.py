"""A fold that keeps everything."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import FactorError


def test_fold_everything() -> None:
    s = last_step()
    message = "fold_storage of 'u': dimension 0 has 4 elements; fewer than that can be kept, not 4"
    with refuses(s, FactorError, message):
        s.fold_storage("u", 0, 4)
