"""A read that is outside for some sizes only."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_symbolic_out_of_bounds() -> None:
    n = pc.size("n")
    x = pc.placeholder((n,), name="x")
    y = pc.compute((8,), lambda i: x[i], "y")
    message = (
        "the tensors are not well defined: y[i=0] reads x[0], outside of its shape [n] (with n=0); "
        "guard such a read: select(condition, inside, outside)"
    )
    with fails(ExpressionError, message):
        pc.Schedule(y)
