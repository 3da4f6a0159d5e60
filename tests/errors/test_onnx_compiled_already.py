"""A module file where a model is expected."""

from __future__ import annotations

import pathlib

from mistakes import fails, module_file

import polycomp as pc
from polycomp.errors import ModelError


def test_onnx_compiled_already(tmp_path: pathlib.Path) -> None:
    content = module_file(tmp_path).read_bytes()
    message = "the model byte string is a module file, compiled already; run or load it as it is"
    with fails(ModelError, message):
        pc.compile(content)
