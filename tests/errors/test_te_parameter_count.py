"""A function of one index for a matrix."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_parameter_count() -> None:
    x = pc.placeholder((4, 6), name="x")
    message = (
        "the function of tensor 'y' takes (i), but the tensor has 2 dimensions; give it one parameter per dimension"
    )
    with fails(ExpressionError, message):
        pc.compute((4, 6), lambda i: x[i, i], "y")
