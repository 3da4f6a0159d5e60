"""A reduction inside of a larger expression."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_nested_reduction() -> None:
    x = pc.placeholder((4, 6), name="x")
    k = pc.reduce_axis(6, "k")
    message = (
        "tensor 'mean' uses a reduction inside a larger expression; compute the reduction as a "
        "tensor of its own and load from that"
    )
    with fails(ExpressionError, message):
        pc.compute((4,), lambda i: pc.sum(x[i, k], axis=k) / 6.0, "mean")
