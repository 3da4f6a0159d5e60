"""Each command on a small model: what it prints and writes."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import plotly.offline
import pytest
from onnx.reference import ReferenceEvaluator

Polycomp = Any


def reference(model: pathlib.Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(ReferenceEvaluator(onnx.load(model)).run(None, {"x": x})[0])


def test_compile_then_run_gives_the_reference_answer(
    polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    compiled = polycomp("compile", model, "-o", tmp_path / "small.pcm")
    assert compiled.status == 0
    assert re.search(r"small\.pcm: \d+ steps? of \d+ kernels?", compiled.out)
    out = tmp_path / "out"
    ran = polycomp("run", tmp_path / "small.pcm", "--input", f"x={tmp_path / 'x.npy'}", "--output-dir", out)
    assert ran.status == 0
    assert "random" not in ran.err
    np.testing.assert_allclose(np.load(out / "y.npy"), reference(model, x), rtol=1e-5, atol=1e-6)


def test_the_module_file_is_named_after_the_model(
    polycomp: Polycomp, model: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert polycomp("compile", model).status == 0
    assert (tmp_path / "small.pcm").exists()


def test_run_says_that_inputs_are_random(polycomp: Polycomp, module: pathlib.Path) -> None:
    ran = polycomp("run", module, "--top", "2")
    assert "using random inputs (x 2x8)" in ran.err
    assert "y: float32 2x6" in ran.out
    assert len(re.findall(r"^    \[\d, \d\] ", ran.out, re.MULTILINE)) == 2


def test_profile_names_the_nodes(polycomp: Polycomp, module: pathlib.Path) -> None:
    ran = polycomp("run", module, "--profile")
    assert "GFLOP/s" in ran.out
    assert "multiply" in ran.out


def test_bench_as_json(polycomp: Polycomp, module: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polycomp.driver import bench

    monkeypatch.setattr(bench, "_ROUND_SECONDS", 0.0)
    record = json.loads(polycomp("bench", module, "--json", "--threads", "1").out)
    assert record["threads"] == 1
    assert 0 < record["polycomp"]["best"] <= record["polycomp"]["median"] <= record["polycomp"]["p90"]


def test_check_accepts_the_small_model(polycomp: Polycomp, model: pathlib.Path) -> None:
    checked = polycomp("check", model, "--per-layer")
    assert checked.status == 0, checked.err
    assert "as in the ONNX reference" in checked.out
    assert all(name in checked.out for name in ("multiply", "rectify", "normalise"))


def test_inspect_shows_the_same_for_model_and_module(
    polycomp: Polycomp, model: pathlib.Path, module: pathlib.Path
) -> None:
    from_model, from_module = polycomp("inspect", model), polycomp("inspect", module)
    assert from_model.status == from_module.status == 0
    assert from_model.out == from_module.out
    assert "MatMul" in from_model.out
    assert "float32[2, 6]" in from_model.out


def test_inspect_writes_a_page(polycomp: Polycomp, module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert polycomp("inspect", module, "--html", tmp_path / "page.html").status == 0
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "MatMul" in page
    assert "http" not in page.replace(plotly.offline.get_plotlyjs(), "")


def test_print_after(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    printed = polycomp("compile", model, "-o", tmp_path / "m.pcm", "--print-after", "import")
    assert "# after import" in printed.out
    assert "float32[2, 6] = MatMul(x, " in printed.out


def test_targets_and_cache(polycomp: Polycomp, module: pathlib.Path) -> None:
    assert "this machine" in polycomp("targets").out
    assert re.search(r"kernels: \d+ entries", polycomp("cache", "--info").out)
    assert polycomp("cache", "--clear").status == 0
    assert "kernels: 0 entries, 0 B" in polycomp("cache").out


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys; from polycomp.cli import cli; cli(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name in ("compile", "run", "bench", "check", "inspect", "targets", "cache"):
        assert re.search(rf"^  {name} ", result.stdout, re.MULTILINE)
    for heavy in ("numpy", "onnx", "islpy", "llvmlite", "rich"):
        assert f"'{heavy}'" not in result.stdout


@pytest.mark.parametrize("statement", ["import polycomp", "import polycomp; polycomp.load"])
def test_loading_needs_no_compiler(statement: str) -> None:
    script = f"import sys; {statement}; print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for heavy in ("onnx", "islpy", "llvmlite", "click", "rich", *(["numpy"] if "load" not in statement else [])):
        assert f"'{heavy}'" not in result.stdout
