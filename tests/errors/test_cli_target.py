"""A target that there is not."""

from __future__ import annotations

import pathlib

import onnx
import pytest
from mistakes import command, model


def test_cli_target(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model(), path)
    status, words = command(capsys, "compile", path, "--target", "z80")
    assert status == 1
    message = (
        "polycomp: error: target 'z80' is unknown; use 'cpu' for this machine, 'cuda' for a GPU, or a triple such as "
        "'x86_64-linux-gnu,features=avx2+fma' or 'aarch64-linux-gnu,cpu=cortex-a72'\n"
    )
    assert words == message
