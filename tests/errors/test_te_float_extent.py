"""A size that is no integer."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ShapeError


def test_te_float_extent() -> None:
    message = "dimension 0 of 'x' is 2.5; a size is an int, or an expression over pc.size(...)"
    with fails(ShapeError, message):
        pc.placeholder((2.5,), name="x")
