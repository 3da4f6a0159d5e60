"""Commands for a GPU: on a machine without one, and on one that executes CUDA C on the CPU."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import numpy as np
import onnx
import pytest
from gpu_machine import Machine, machine, needs_harness, needs_nvrtc, no_gpu
from onnx.reference import ReferenceEvaluator

__all__ = ["machine", "no_gpu"]

Polycomp = Any


@pytest.fixture
def module(polycomp: Polycomp, model: pathlib.Path) -> pathlib.Path:
    """The small model, compiled for GPUs."""
    path = model.with_suffix(".pcm")
    compiled = polycomp("compile", model, "-o", path, "--target", "cuda,arch=sm_80+sm_120")
    assert compiled.status == 0, compiled.err
    return path


@needs_nvrtc
class TestWithoutGpu:
    def test_inspect_shows_what_kernels_take(self, polycomp: Polycomp, module: pathlib.Path, no_gpu: None) -> None:
        shown = polycomp("inspect", module)
        assert shown.status == 0, shown.err
        assert "cuda sm_80 sm_120" in shown.out
        assert re.search(r"sm_80 [\d,]+ bytes, sm_120 [\d,]+ bytes, ptx [\d,]+ bytes", shown.out)
        assert re.search(r"_0 +│ +\d+ │ +\d+ │ sm_80 +│ +\d+ │ +[\d,]+ │ +[\d,]+ │ +[\d,]+ │ +\d+% │", shown.out)

    def test_inspect_shows_the_same_of_the_model(
        self, polycomp: Polycomp, model: pathlib.Path, module: pathlib.Path, no_gpu: None
    ) -> None:
        of_model = polycomp("inspect", model, "--target", "cuda,arch=sm_80+sm_120")
        assert of_model.status == 0 and of_model.out == polycomp("inspect", module).out

    def test_the_page_has_it_too(
        self, polycomp: Polycomp, module: pathlib.Path, tmp_path: pathlib.Path, no_gpu: None
    ) -> None:
        assert polycomp("inspect", module, "--html", tmp_path / "page.html").status == 0
        assert "Launches on the GPU" in (tmp_path / "page.html").read_text()

    @pytest.mark.parametrize("command", ["run", "bench"])
    def test_a_module_says_what_is_missing(
        self, polycomp: Polycomp, module: pathlib.Path, no_gpu: None, command: str
    ) -> None:
        failed = polycomp(command, module)
        assert failed.status == 1 and failed.err.count("\n") == 1
        assert "cupy, which is not installed" in failed.err

    def test_threads_are_not_for_a_module(self, polycomp: Polycomp, module: pathlib.Path) -> None:
        for command in ("run", "bench"):
            failed = polycomp(command, module, "--threads", 2)
            assert failed.status == 1 and "threads is 2, but that is for CPUs" in failed.err


@pytest.mark.parametrize("command", ["bench", "check"])
def test_a_model_is_not_compiled_for_a_gpu_that_is_not_there(
    polycomp: Polycomp, model: pathlib.Path, no_gpu: None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polycomp.driver.kernels.Workers.compile", lambda *_: pytest.fail("it was compiled"))
    failed = polycomp(command, model, "--target", "cuda")
    assert failed.status == 1 and "cupy, which is not installed" in failed.err


def test_targets(polycomp: Polycomp, no_gpu: None) -> None:
    out = polycomp("targets").out
    assert re.search(r"^cuda +NVIDIA's GPUs: code for sm_80 and sm_90a, and PTX", out, re.MULTILINE)
    assert re.search(
        r"^  compiled by +(NVRTC \d+\.\d+, which has sm_80 |missing: .*polycomp\[cuda\])", out, re.MULTILINE
    )
    assert re.search(r"^  run on +missing: .*cupy, which is not installed", out, re.MULTILINE)


def test_targets_with_a_gpu(polycomp: Polycomp, machine: Machine) -> None:
    assert re.search(r"run on +CUDA test harness, sm_90, .* of .* free", polycomp("targets").out)


def test_targets_without_nvrtc(polycomp: Polycomp, monkeypatch: pytest.MonkeyPatch) -> None:
    from polycomp.codegen.cuda import nvrtc

    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: None)
    monkeypatch.setattr(nvrtc, "_nvrtc", nvrtc._nvrtc.__wrapped__)  # what it found before
    assert re.search(r"compiled by +missing: CUDA kernels are compiled by NVRTC", polycomp("targets").out)


@needs_nvrtc
@needs_harness
class TestWithGpu:
    def test_run(self, machine: Machine, polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
        path = compiled(polycomp, model)
        x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        ran = polycomp("run", path, "--input", f"x={tmp_path / 'x.npy'}", "--output-dir", tmp_path / "out")
        assert ran.status == 0, ran.err
        assert re.search(r"^ran in .* on CUDA test harness$", ran.out, re.MULTILINE)
        wanted = ReferenceEvaluator(onnx.load(model)).run(None, {"x": x})[0]
        np.testing.assert_allclose(np.load(tmp_path / "out" / "y.npy"), wanted, rtol=1e-5, atol=1e-6)

    def test_profile(self, machine: Machine, polycomp: Polycomp, model: pathlib.Path) -> None:
        ran = polycomp("run", compiled(polycomp, model), "--profile")
        assert ran.status == 0, ran.err
        assert "GFLOP/s" in ran.out and "multiply" in ran.out

    def test_bench(
        self, machine: Machine, polycomp: Polycomp, model: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from polycomp.driver import bench

        monkeypatch.setattr(bench, "_ROUND_SECONDS", 0.0)
        path = compiled(polycomp, model)
        assert re.search(r"runs/s, CUDA test harness \(\d+ runs\)", polycomp("bench", path).out)
        record = json.loads(polycomp("bench", path, "--json").out)
        assert record["device"] == "CUDA test harness" and "threads" not in record

    def test_a_page_of_roofs_is_refused(self, machine: Machine, polycomp: Polycomp, model: pathlib.Path) -> None:
        for subject in ([compiled(polycomp, model)], [model, "--target", "cuda"]):
            failed = polycomp("bench", *subject, "--html", "page.html")
            assert failed.status == 2 and "not of a GPU" in failed.err

    def test_check(self, machine: Machine, polycomp: Polycomp, model: pathlib.Path) -> None:
        checked = polycomp("check", model, "--target", "cuda", "--per-layer", "--no-cache")
        assert checked.status == 0, checked.err
        assert all(name in checked.out for name in ("multiply", "rectify", "normalise"))


def compiled(polycomp: Polycomp, model: pathlib.Path) -> pathlib.Path:
    """The module, made now: the machine executes only what it saw being compiled."""
    path = model.with_suffix(".pcm")
    result = polycomp("compile", model, "-o", path, "--target", "cuda", "--no-cache")
    assert result.status == 0, result.err
    return path
