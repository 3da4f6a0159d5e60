"""Tuning on a cluster where Ray is not installed."""

from __future__ import annotations

import pathlib
import sys

import onnx
import pytest
from mistakes import command, model


def test_cli_cluster_without_ray(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model(), path)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, words = command(capsys, "tune", path, "--cluster", "auto", "--db", tmp_path / "tune.jsonl")
    assert status == 1
    assert words == "polycomp: error: --cluster needs Ray, which is not installed; pip install polycomp[fleet]\n"
