"""``run`` of a model that is not compiled."""

from __future__ import annotations

import pathlib

import onnx
import pytest
from mistakes import command, model


def test_cli_run_a_model(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model(), path)
    status, words = command(capsys, "run", path)
    assert status == 1
    message = (
        f"polycomp: error: {tmp_path}/small.onnx is a model, not a module file; compile it first: "
        f"polycomp compile {tmp_path}/small.onnx -o small.pcm\n"
    )
    assert words == message
