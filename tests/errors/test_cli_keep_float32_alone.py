"""``--keep-float32`` without a precision that it would be left alone by."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_keep_float32_alone(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "compile", "m.onnx", "--keep-float32", "Softmax")
    assert status == 2
    message = (
        "polycomp: error: --keep-float32 is for what another --precision leaves alone; give that, or leave it out (try "
        "'polycomp compile --help')\n"
    )
    assert words == message
