"""A reduction axis named like an index."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_repeated_axis() -> None:
    x = pc.placeholder((4, 6), name="x")
    k = pc.reduce_axis(6, "i")
    message = "tensor 'total' has two axes named 'i'; give each axis its own name"
    with fails(ExpressionError, message):
        pc.compute((4,), lambda i: pc.sum(x[i, k], axis=k), "total")
