"""A shape fixed for an input that there is not."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import ShapeError


def test_onnx_unknown_input_shape() -> None:
    message = "a shape was given for 'z', but the model's inputs are 'x' [2, 8]"
    with fails(ShapeError, message):
        pc.compile(model(), shapes={"z": [1, 8]}, cache=False)
