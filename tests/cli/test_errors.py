"""What a user gets wrong: one sentence on standard error, the right status, nothing half-written."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest

Polycomp = Any


def assert_failed(result: Any, *words: str, status: int = 1) -> None:
    """One line on standard error that starts as promised and says ``words``; no traceback."""
    assert result.status == status, result
    lines = [line for line in result.err.splitlines() if not line.startswith("no --input given")]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("polycomp: error: ")
    for word in words:
        assert word in lines[0]


def test_a_model_that_is_not_there(polycomp: Polycomp, tmp_path: pathlib.Path) -> None:
    assert_failed(polycomp("compile", tmp_path / "none.onnx"), "none.onnx", "No such file")


def test_a_truncated_model(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    assert_failed(polycomp("compile", model, "-o", tmp_path / "m.pcm"), "small.onnx")
    assert not (tmp_path / "m.pcm").exists()


def test_missing_external_data(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    external = tmp_path / "external.onnx"
    onnx.save(onnx.load(model), external, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    assert_failed(polycomp("compile", external, "-o", tmp_path / "m.pcm"), "weights.bin")


def test_an_unknown_operator_is_named(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    proto = onnx.load(model)
    proto.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(proto, model)
    assert_failed(polycomp("compile", model, "-o", tmp_path / "m.pcm"), "NoSuchOperator", "rectify")


@pytest.mark.parametrize("output", ["missing/m.pcm", ".", "file/m.pcm"])
def test_an_output_that_cannot_be_written(
    polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path, output: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    assert_failed(polycomp("compile", model, "-o", tmp_path / output), str(tmp_path))
    assert sorted(tmp_path.iterdir()) == before


def test_a_read_only_file_system(polycomp: Polycomp, model: pathlib.Path) -> None:
    assert_failed(polycomp("compile", model, "-o", "/proc/m.pcm"), "/proc/m.pcm")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "there is no command"),
        (["compile"], "Missing argument"),
        (["compile", "m.onnx", "--shape", "x"], "NAME=DIM"),
        (["compile", "m.onnx", "--shape", "x=1,a"], "NAME=DIM"),
        (["compile", "m.onnx", "--emit", "exe"], "--emit"),
        (["compile", "m.onnx", "--print-after", "nothing"], "'import'"),
        (["run", "m.pcm", "--input", "x.npy"], "NAME=FILE"),
        (["bench", "m.pcm", "--against", "onnxruntime"], "--against"),
    ],
)
def test_wrong_usage(polycomp: Polycomp, arguments: list[str], words: str) -> None:
    assert_failed(polycomp(*arguments), words, status=2)


def test_an_unknown_target(polycomp: Polycomp, model: pathlib.Path) -> None:
    assert_failed(polycomp("compile", model, "--target", "z80"), "'z80'", "cpu")


def test_a_shape_for_an_input_that_is_not_there(
    polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert_failed(polycomp("compile", model, "-o", tmp_path / "m.pcm", "--shape", "z=1,2"), "'z'", "'x'")


def test_the_model_is_not_overwritten(polycomp: Polycomp, model: pathlib.Path) -> None:
    before = model.read_bytes()
    assert_failed(polycomp("compile", model, "-o", model), "is the model itself", status=2)
    assert model.read_bytes() == before


def test_running_a_model_instead_of_a_module(polycomp: Polycomp, model: pathlib.Path) -> None:
    assert_failed(polycomp("run", model), "compile it first")


def test_a_module_that_is_not_there(polycomp: Polycomp, tmp_path: pathlib.Path) -> None:
    assert_failed(polycomp("run", tmp_path / "none.pcm"), "none.pcm")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:300] + b"\xff" + b[301:], lambda b: b""])
def test_a_damaged_module(polycomp: Polycomp, module: pathlib.Path, damage: Any) -> None:
    module.write_bytes(damage(module.read_bytes()))
    assert_failed(polycomp("run", module), "small.pcm")


def test_inputs_that_do_not_fit(polycomp: Polycomp, module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8), np.float32))
    (tmp_path / "text.npy").write_text("not an array")
    assert_failed(polycomp("run", module, "--input", f"x={tmp_path / 'x.npy'}"), "'x'")
    assert_failed(polycomp("run", module, "--input", f"x={tmp_path / 'text.npy'}"), "not a .npy file")
    assert_failed(polycomp("run", module, "--input", f"x={tmp_path / 'none.npy'}"), "No such file")
    assert_failed(polycomp("run", module, "--shape", "z=1"), "'z'")


def test_an_interruption_leaves_nothing(
    polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("polycomp.driver.kernels.Workers.compile", interrupt)
    result = polycomp("compile", model, "-o", tmp_path / "m.pcm", "--no-cache")
    assert result.status == 130
    assert result.err.strip() == "polycomp: error: interrupted"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx"]


def test_without_a_home_there_is_one_warning(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "polycomp", "compile", str(model), "-o", str(tmp_path / "m.pcm")],
        capture_output=True, text=True, check=False, env={"PATH": ""},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("polycomp: warning: ") == 1
    assert "home" in result.stderr


def test_nothing_asked_for_shows_the_help(polycomp: Polycomp) -> None:
    result = polycomp()
    assert result.status == 2
    assert result.err.startswith("Usage: polycomp") and "compile" in result.err


def test_a_misspelt_command(polycomp: Polycomp) -> None:
    assert_failed(polycomp("compil", "x.onnx"), "no command 'compil'", "did you mean 'compile'?", status=2)


def test_a_folder_that_is_not_there(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "nowhere" / "m.pcm"
    assert_failed(polycomp("compile", model, "-o", output), f"cannot write {output}", f"no folder {output.parent}")


def test_a_peer_that_cannot_load_the_model(polycomp: Polycomp, model: pathlib.Path) -> None:
    proto = onnx.load(model)
    proto.ir_version = 99  # polycomp does not mind: the format's version says nothing about the operators
    onnx.save(proto, model)
    pytest.importorskip("onnxruntime")
    words = ("onnxruntime cannot load", "leave --against out", "IR version")
    assert_failed(polycomp("bench", model, "--against", "onnxruntime"), *words)
