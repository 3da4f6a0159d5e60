"""Models at the edges of what ONNX allows, compiled and run."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polycomp.driver.compile import compile_model
from polycomp.errors import ExecutionError, InputError
from polycomp.options import Options
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def compiled(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], outputs: list[str], name: str = "g", **weights: Array
) -> Module:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return compile_model(proto, Options(jobs=1)).module(1)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def test_outputs_that_are_inputs_and_weights() -> None:
    x = np.array([-1.0, 2.0], np.float32)
    module = compiled([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y", "x", "w"], w=ones(3))
    outputs = module.run({"x": x})
    for name, wanted in {"y": np.maximum(x, 0), "x": x, "w": ones(3)}.items():
        np.testing.assert_array_equal(outputs[name], wanted)
    assert not np.shares_memory(outputs["x"], x)


def test_a_model_without_nodes() -> None:
    x = np.array([3.0, 4.0], np.float32)
    np.testing.assert_array_equal(compiled([], {"x": [2]}, ["x"]).run({"x": x})["x"], x)


@pytest.mark.parametrize(
    ("node", "inputs", "wanted"),
    [
        (helper.make_node("Relu", ["a"], ["y"]), {"a": [0, 4]}, (0, 4)),
        (helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": [3, 0], "b": [0, 4]}, (3, 4)),
        (helper.make_node("ReduceSum", ["a"], ["y"], keepdims=0), {"a": [0, 4]}, ()),
        (helper.make_node("Conv", ["a", "b"], ["y"]), {"a": [0, 3, 8, 8], "b": [4, 3, 3, 3]}, (0, 4, 6, 6)),
        (helper.make_node("Concat", ["a", "b"], ["y"], axis=0), {"a": [0, 3], "b": [2, 3]}, (2, 3)),
        (helper.make_node("Softmax", ["a"], ["y"], axis=1), {"a": [0, 3]}, (0, 3)),
    ],
)
def test_sizes_of_zero(node: onnx.NodeProto, inputs: dict[str, list[int]], wanted: tuple[int, ...]) -> None:
    y = compiled([node], inputs, ["y"]).run({n: ones(*s) for n, s in inputs.items()})["y"]
    assert y.shape == wanted
    if node.op_type in ("MatMul", "ReduceSum"):
        assert not y.any()


def test_names_of_any_length_and_script() -> None:
    names = ["n" * 5000, "é\n\"'\x00中", "%s {x} [red]"]
    chain = ["入力", *names, "y"]
    nodes = [helper.make_node("Neg", [a], [b], name=f"ノード🙂{b}") for a, b in itertools.pairwise(chain)]
    y = compiled(nodes, {"入力": ["バッチ a-b"]}, ["y"], name="グラフ/../x").run({"入力": ones(3)})["y"]
    np.testing.assert_array_equal(y, ones(3))


def test_thousands_of_nodes() -> None:
    operators = ("Relu", "Neg", "Abs", "Tanh", "Sigmoid")
    nodes = [helper.make_node(operators[i % 5], [f"v{i}"], [f"v{i + 1}"]) for i in range(1500)]
    assert compiled(nodes, {"v0": [5]}, ["v1500"]).run({"v0": ones(5)})["v1500"].shape == (5,)


def test_sizes_that_only_a_run_can_judge() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"], name="rows of four"),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    module = compiled(nodes, {"x": ["n", 6]}, ["y"], s=np.array([-1, 4]))
    assert module.run({"x": ones(2, 6)})["y"].shape == (3, 4)
    for n in (1, 3):
        wanted = rf"cannot be run with n = {n}: Reshape node 'rows of four': .* cannot be reshaped to"
        with pytest.raises(InputError, match=wanted):
            module.run({"x": ones(n, 6)})


def test_an_image_smaller_than_its_windows() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])]
    module = compiled(nodes, {"x": [1, 1, "h", "v"]}, ["y"], w=ones(1, 1, 3, 3))
    assert module.run({"x": ones(1, 1, 3, 3)})["y"] == 9
    with pytest.raises(InputError, match="dimension 2"):
        module.run({"x": ones(1, 1, 1, 1)})


def test_sizes_that_need_too_much_memory() -> None:
    module = compiled([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": ["n", 1], "b": [1, "n"]}, ["y"])
    for n in (2**22, 2**40):
        a = np.broadcast_to(np.float32(1), (n, 1))
        with pytest.raises(ExecutionError, match="bytes"):
            module.run({"a": a, "b": a.T})
