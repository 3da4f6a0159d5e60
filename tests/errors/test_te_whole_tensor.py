"""A tensor without indices in an expression."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_whole_tensor() -> None:
    x = pc.placeholder((8,), name="x")
    message = "tensor 'x' is used as a whole in an expression; take an element of it: x[i]"
    with fails(ExpressionError, message):
        pc.compute((8,), lambda i: x * 2.0, "y")
