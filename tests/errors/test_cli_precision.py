"""A ``--precision`` that there is not."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_precision(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "compile", "m.onnx", "--precision", "half")
    assert status == 2
    message = (
        "polycomp: error: Invalid value for '--precision': 'half' is not one of 'float32', 'float16', 'bfloat16'. (try "
        "'polycomp compile --help')\n"
    )
    assert words == message
