"""``--threads`` for a GPU."""

from __future__ import annotations

import pathlib

import onnx
import pytest
from mistakes import command, model


def test_cli_threads_for_a_gpu(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model(), path)
    status, words = command(capsys, "compile", path, "--target", "cuda", "--threads", "2")
    assert status == 1
    message = (
        "polycomp: error: threads is 2, but that is for CPUs: how many threads a GPU runs is part of each kernel's "
        "schedule; leave it out\n"
    )
    assert words == message
