"""A model that is not there."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ModelError


def test_onnx_no_such_file() -> None:
    message = "cannot read the model file 'nowhere.onnx': No such file or directory"
    with fails(ModelError, message):
        pc.compile("nowhere.onnx", cache=False)
