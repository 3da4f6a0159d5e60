"""A model compiled for GPUs without NVRTC, which compiles their kernels."""

from __future__ import annotations

import pytest
from mistakes import doubled, fails

import polycomp as pc
from polycomp.codegen.cuda import nvrtc
from polycomp.errors import TargetError


def test_compile_without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: None)
    monkeypatch.setattr(nvrtc, "_nvrtc", nvrtc._nvrtc.__wrapped__)  # what it found before
    message = (
        "CUDA kernels are compiled by NVRTC (libnvrtc.so.13 or libnvrtc.so.12), which is not installed; use pip "
        "install 'polycomp[cuda]'"
    )
    with fails(TargetError, message):
        pc.build(doubled(), target="cuda")
