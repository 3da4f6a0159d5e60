"""A recurrence that reads a later step."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_recurrence_of_the_future() -> None:
    message = (
        "tensor 'u' is defined by its own element u[(t + 1), i], whose first index is not a constant "
        "number of steps before t"
    )
    with fails(ExpressionError, message):
        pc.recurrence((4, 8), lambda u, t, i: u[t + 1, i], name="u")
