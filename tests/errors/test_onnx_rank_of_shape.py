"""A shape of another rank fixed for an input."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import ShapeError


def test_onnx_rank_of_shape() -> None:
    message = "the shape [2, 8, 1] does not fit the input 'x'; the inputs are 'x' [2, 8]"
    with fails(ShapeError, message):
        pc.compile(model(), shapes={"x": [2, 8, 1]}, cache=False)
