"""A recurrence whose first step is not defined."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_recurrence_without_start() -> None:
    u = pc.recurrence((4, 8), lambda u, t, i: u[t - 1, i], name="u")
    message = (
        "the tensors are not well defined: u[t=0, i=0] reads u[-1, 0], outside of its shape [4, 8]; "
        "guard such a read: select(condition, inside, outside)"
    )
    with fails(ExpressionError, message):
        pc.Schedule(u)
