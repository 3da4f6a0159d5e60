"""A reduction over an axis number, as in numpy."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_axis_number() -> None:
    x = pc.placeholder((4, 6), name="x")
    message = "sum over 1: give an axis, such as k = pc.reduce_axis(extent, 'k')"
    with fails(ExpressionError, message):
        pc.compute((4,), lambda i: pc.sum(x[i, 0], axis=1), "total")
