"""A module for GPUs, loaded where cupy is not installed."""

from __future__ import annotations

import pathlib
import sys

import pytest
from mistakes import fails, module_file_for_a_gpu

import polycomp as pc
from polycomp.errors import TargetError


def test_load_without_a_gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    message = (
        "modules for CUDA run with cupy, which is not installed: pip install 'polycomp[cuda]', or compile the model "
        "for the CPU"
    )
    with fails(TargetError, message):
        pc.load(module_file_for_a_gpu(tmp_path))
