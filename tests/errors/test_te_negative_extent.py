"""A size below zero."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ShapeError


def test_te_negative_extent() -> None:
    message = "dimension 0 of 'x' is -3; a size is at least 0"
    with fails(ShapeError, message):
        pc.placeholder((-3,), name="x")
