"""``run`` of a module for GPUs where cupy is not installed."""

from __future__ import annotations

import pathlib
import sys

import pytest
from mistakes import command, module_file_for_a_gpu


def test_cli_run_without_a_gpu(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    path = module_file_for_a_gpu(tmp_path)
    status, words = command(capsys, "run", path)
    assert status == 1
    message = (
        "polycomp: error: modules for CUDA run with cupy, which is not installed: pip install 'polycomp[cuda]', or "
        "compile the model for the CPU\n"
    )
    assert words == message
