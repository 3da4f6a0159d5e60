"""An order that needs more steps of time than a fold has left."""

from __future__ import annotations

from mistakes import leaning, refuses

from polycomp.errors import IllegalScheduleError


def test_fold_reorder() -> None:
    s = leaning()
    s.fold_storage("u", 0, 2)
    message = (
        "reorder('i', 't') is illegal: u[t=1, i=1] reads u[0, 0] after u[t=2, i=0] has written u[2, 0] to its place "
        "(dimension 0 is kept modulo 2). What helps: it is legal when more of u is kept, or what is kept is read sooner"
    )
    with refuses(s, IllegalScheduleError, message):
        s.reorder("i", "t")
