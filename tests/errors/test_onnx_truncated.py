"""The first half of a model's bytes."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import ModelError


def test_onnx_truncated() -> None:
    content = model().SerializeToString()
    message = "the model byte string is not an ONNX model, or it is truncated or damaged"
    with fails(ModelError, message):
        pc.compile(content[: len(content) // 2], cache=False)
