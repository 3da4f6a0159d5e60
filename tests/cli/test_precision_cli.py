"""``--precision`` and ``--keep-float32`` of the commands."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Polycomp = Any


def test_compile_and_inspect(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert polycomp("compile", model, "--precision", "float16", "-o", tmp_path / "half.pcm").status == 0
    shown = polycomp("inspect", tmp_path / "half.pcm").out
    assert shown == polycomp("inspect", model, "--precision", "float16").out
    assert "float16 where that is safe" in shown
    assert "x: float32[2, 8]" in shown
    assert "float16[2, 6]" in shown
    assert "precision" not in polycomp("inspect", model).out


def test_the_graph_is_shown_after_the_pass(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    asked = ("--precision", "bfloat16", "--print-after", "mixed_precision", "-o", tmp_path / "m.pcm")
    assert "bfloat16[2, 6] = MatMul(" in polycomp("compile", model, *asked).out


def test_check_tells_errors(polycomp: Polycomp, model: pathlib.Path) -> None:
    checked = polycomp("check", model, "--precision", "float16")
    assert checked.status == 0, checked.err
    pattern = r"1 output in float16 as in float32; largest relative error (\S+), absolute (\S+); inputs: x 2x8\n$"
    found = re.search(pattern, checked.out)
    assert found
    assert 0 < float(found[1]) < 1e-2
    assert "in float32 " not in checked.out.split(";")[0].replace("as in float32", "")


def test_check_per_layer_lists_nodes(polycomp: Polycomp, model: pathlib.Path) -> None:
    checked = polycomp("check", model, "--precision", "bfloat16", "--per-layer")
    assert checked.status == 0, checked.err
    assert "absolute error" in checked.out
    assert all(name in checked.out for name in ("multiply", "rectify", "normalise"))
    assert "1 output and 3 values inside in bfloat16 as in float32" in checked.out


def test_check_tells_what_stays_in_float32(polycomp: Polycomp, model: pathlib.Path) -> None:
    checked = polycomp("check", model, "--precision", "float16", "--keep-float32", "Relu,MatMul")
    assert re.search(r"MatMul +│ multiply +│ it was asked to ", checked.out)
    assert re.search(r"Softmax +│ normalise +│ it reads float32 ", checked.out)
    assert "largest relative error 0, absolute 0" in checked.out


def test_check_names_the_node_that_overflows(polycomp: Polycomp, tmp_path: pathlib.Path) -> None:
    matrix = np.full((8, 8), 1000.0, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "fine"),
        helper.make_node("Mul", ["a", "a"], ["b"], "large"),
        helper.make_node("MatMul", ["b", "w"], ["y"], "broken"),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
        [numpy_helper.from_array(matrix, "w")],
    )
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    checked = polycomp("check", path, "--precision", "float16")
    assert checked.status == 1
    assert "MatMul node 'broken' is the first that differs from float32 by more than float16 may" in checked.err
    assert "--keep-float32 broken leaves it in float32" in checked.err
    assert re.search(r"Mul +│ large +│ its results may be beyond the range of float16", checked.out)
    assert polycomp("check", path, "--precision", "float16", "--keep-float32", "broken").status == 0
    assert polycomp("check", path, "--precision", "bfloat16").status == 0


@pytest.mark.parametrize("command", ["bench", "inspect"])
def test_module_files_have_their_precision(polycomp: Polycomp, module: pathlib.Path, command: str) -> None:
    told = polycomp(command, module, "--precision", "float16")
    assert told.status == 2
    assert "--precision is for models" in told.err
