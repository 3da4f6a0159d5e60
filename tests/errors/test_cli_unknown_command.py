"""A command that there is not."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "frobnicate")
    assert status == 2
    assert words == (
        "polycomp: error: there is no command 'frobnicate'; there are compile, run, bench, check, tune, inspect, targets, cache\n"
    )
