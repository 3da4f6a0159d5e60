"""An undo before any primitive."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import ScheduleError


def test_undo_nothing() -> None:
    s = doubled()
    message = "undo: no primitive has been applied"
    with refuses(s, ScheduleError, message):
        s.undo()
