"""A format that there is not."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_emit(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "compile", "m.onnx", "--emit", "exe")
    assert status == 2
    assert words == (
        "polycomp: error: Invalid value for '--emit': 'exe' is not 'pcm'. (try 'polycomp compile --help')\n"
    )
