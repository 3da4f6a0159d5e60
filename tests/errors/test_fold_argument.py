"""An output of which only a part is kept."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import PlacementError


def test_fold_argument() -> None:
    s = last_step()
    message = "fold_storage of 'last': it is an argument; tensors stored here are 'u'"
    with refuses(s, PlacementError, message):
        s.fold_storage("last", 0, 2)
