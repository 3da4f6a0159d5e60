"""Fewer steps of time kept than the next one needs."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import IllegalScheduleError


def test_fold_overwritten() -> None:
    s = last_step()
    message = (
        "fold_storage('u', 0, 1) is illegal: u[t=1, i=1] reads u[0, 0] after u[t=1, i=0] has written u[1, 0] to its place "
        "(dimension 0 is kept modulo 1). What helps: fold_storage('u', 0, 2) is legal"
    )
    with refuses(s, IllegalScheduleError, message):
        s.fold_storage("u", 0, 1)
