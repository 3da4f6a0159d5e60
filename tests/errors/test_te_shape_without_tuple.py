"""A shape that is a number."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ShapeError


def test_te_shape_without_tuple() -> None:
    message = "the shape of 'x' is 8; a shape is a tuple of sizes, such as (8,)"
    with fails(ShapeError, message):
        pc.placeholder(8, name="x")  # type: ignore[arg-type]
