"""An element of a matrix by one index."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ShapeError


def test_te_index_count() -> None:
    x = pc.placeholder((4, 6), name="x")
    message = "tensor 'x' has 2 dimensions, which x[i] does not fit; give one index per dimension"
    with fails(ShapeError, message):
        pc.compute((4,), lambda i: x[i], "y")
