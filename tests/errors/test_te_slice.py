"""A slice where a definition takes one element."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_slice() -> None:
    x = pc.placeholder((4, 6), name="x")
    message = (
        "tensor 'x' is indexed by :, which gives more than one element; a definition is of one element: use the "
        "function's indices"
    )
    with fails(ExpressionError, message):
        pc.compute((4,), lambda i: x[i, :], "y")
