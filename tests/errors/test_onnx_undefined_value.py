"""A node that reads a value that nothing makes."""

from __future__ import annotations

from mistakes import fails, model
from onnx import helper

import polycomp as pc
from polycomp.errors import ModelError


def test_onnx_undefined_value() -> None:
    message = "Add node 'plus' reads 'nowhere', which is made nowhere in the model"
    with fails(ModelError, message):
        pc.compile(model(helper.make_node("Add", ["x", "nowhere"], ["y"], "plus")), cache=False)
