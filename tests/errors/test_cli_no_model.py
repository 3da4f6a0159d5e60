"""``compile`` without a model."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "compile")
    assert status == 2
    assert words == "polycomp: error: Missing argument 'MODEL'. (try 'polycomp compile --help')\n"
