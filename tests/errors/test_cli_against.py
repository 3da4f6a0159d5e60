"""A peer that there is not."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_against(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "bench", "m.onnx", "--against", "torch")
    assert status == 2
    message = (
        "polycomp: error: Invalid value for '--against': 'torch' is not 'onnxruntime'. (try 'polycomp bench --help')\n"
    )
    assert words == message
