"""An input that is no NAME=FILE."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_input_syntax(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "run", "m.pcm", "--input", "x.npy")
    assert status == 2
    message = (
        "polycomp: error: Invalid value for '--input': 'x.npy' is not NAME=FILE, for example "
        "input=x.npy (try 'polycomp run --help')\n"
    )
    assert words == message
