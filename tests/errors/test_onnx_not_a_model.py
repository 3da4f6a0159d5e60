"""Bytes that are no model."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ModelError


def test_onnx_not_a_model() -> None:
    message = "the model byte string is not an ONNX model, or it is truncated or damaged"
    with fails(ModelError, message):
        pc.compile(b"not a model", cache=False)
