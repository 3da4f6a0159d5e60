"""A page where plotly, which draws its charts, is not installed."""

from __future__ import annotations

import pathlib
import sys

import pytest
from mistakes import command


def test_cli_html_without_plotly(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "plotly", None)
    status, words = command(capsys, "bench", "model.onnx", "--html", "roofline.html")
    assert status == 1
    assert words == "polycomp: error: --html needs plotly, which is not installed; pip install polycomp[html]\n"
