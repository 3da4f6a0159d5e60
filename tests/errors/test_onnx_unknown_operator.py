"""A model with an operator that there is not."""

from __future__ import annotations

from mistakes import fails, model
from onnx import helper

import polycomp as pc
from polycomp.errors import UnsupportedOperatorError


def test_onnx_unknown_operator() -> None:
    message = "the model uses operators that are not supported: Frobnicate (1: 'odd')"
    with fails(UnsupportedOperatorError, message):
        pc.compile(model(helper.make_node("Frobnicate", ["x"], ["y"], "odd")), cache=False)
