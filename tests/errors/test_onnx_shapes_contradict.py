"""A product of matrices that do not fit."""

from __future__ import annotations

from mistakes import fails, model
from onnx import helper

import polycomp as pc
from polycomp.errors import ShapeError


def test_onnx_shapes_contradict() -> None:
    message = "MatMul 'square': shapes [2, 8] and [2, 8] cannot be multiplied"
    with fails(ShapeError, message):
        pc.compile(model(helper.make_node("MatMul", ["x", "x"], ["y"], "square")), cache=False)
