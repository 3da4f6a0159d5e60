"""A small model, and a way to call the command."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polycomp import cli


@dataclasses.dataclass(frozen=True)
class Result:
    """What a call of the command left behind."""

    status: int
    out: str
    err: str


Polycomp = Callable[..., Result]


@pytest.fixture
def polycomp(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Polycomp:
    """Calls ``polycomp`` in this process, with a cache that all tests share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(a) for a in arguments])
        output = capsys.readouterr()
        return Result(int(exit_.value.code or 0), output.out, output.err)

    return call


def small_model() -> onnx.ModelProto:
    """``y = softmax(relu(x @ w))`` for ``x`` of 2x8 and random ``w`` of 8x6."""
    w = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "multiply"),
        helper.make_node("Relu", ["product"], ["rectified"], "rectify"),
        helper.make_node("Softmax", ["rectified"], ["y"], "normalise", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.fixture
def module(model: pathlib.Path, polycomp: Polycomp) -> pathlib.Path:
    path = model.with_suffix(".pcm")
    assert polycomp("compile", model, "-o", path).status == 0
    return path
