"""A function that returns nothing."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_no_value() -> None:
    message = "the function of tensor 'y' returned None instead of the value of an element"
    with fails(ExpressionError, message):
        pc.compute((8,), lambda i: None, "y")
