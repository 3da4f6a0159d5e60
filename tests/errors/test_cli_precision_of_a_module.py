"""The precision of what was compiled before."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_precision_of_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "bench", "m.pcm", "--precision", "float16")
    assert status == 2
    message = (
        "polycomp: error: --precision is for models: a module file is in the one that it was compiled in (try "
        "'polycomp bench --help')\n"
    )
    assert words == message
