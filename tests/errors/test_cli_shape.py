"""A shape that is none."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_shape(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "compile", "m.onnx", "--shape", "x")
    assert status == 2
    message = (
        "polycomp: error: Invalid value for '--shape': 'x' is not NAME=DIM,DIM,..., for example "
        "input=1,3,224,224 (try 'polycomp compile --help')\n"
    )
    assert words == message
