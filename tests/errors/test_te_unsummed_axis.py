"""A reduction axis that nothing reduces over."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_unsummed_axis() -> None:
    x = pc.placeholder((4, 6), name="x")
    k = pc.reduce_axis(6, "k")
    message = (
        "tensor 'y' uses the axis 'k', which is none of its indices; reduce over it, as in "
        "pc.sum(..., axis=k), or make it an index"
    )
    with fails(ExpressionError, message):
        pc.Schedule(pc.compute((4,), lambda i: x[i, k] * 2.0, "y"))
