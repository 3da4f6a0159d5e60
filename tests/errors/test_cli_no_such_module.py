"""``run`` of a module that is not there."""

from __future__ import annotations

import pathlib

import pytest
from mistakes import command


def test_cli_no_such_module(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    status, words = command(capsys, "run", tmp_path / "none.pcm")
    assert status == 1
    assert words == f"polycomp: error: cannot read module file '{tmp_path}/none.pcm': No such file or directory\n"
