"""An attribute with a value that the operator cannot take."""

from __future__ import annotations

from mistakes import fails, model
from onnx import helper

import polycomp as pc
from polycomp.errors import ShapeError


def test_onnx_attribute() -> None:
    message = "Softmax node 'normalise' has axis 5, but its tensor has 2 dimensions"
    with fails(ShapeError, message):
        pc.compile(model(helper.make_node("Softmax", ["x"], ["y"], "normalise", axis=5)), cache=False)
