"""Open sizes that must be equal become one; what cannot be known before a run becomes a condition of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import Shape, model, node

from polycomp.errors import ShapeError
from polycomp.graph import Graph
from polycomp.importers.onnx import import_onnx

F32 = np.float32


def shapes(graph: Graph) -> dict[str, list[str]]:
    return {name: [str(d) for d in graph.types[name].shape] for name in (*graph.inputs, *graph.outputs)}


def imported(nodes: list[Any], inputs: dict[str, Shape], **constants: np.ndarray[Any, Any]) -> Graph:
    return import_onnx(model(nodes, inputs, constants=constants))


@pytest.mark.parametrize(
    ("op", "x", "w", "attributes"),
    [
        ("MatMul", ["n", "k"], (6, 4), {}),
        ("Gemm", ["n", "k"], (4, 6), {"transB": 1}),
        ("Gemm", ["k", "n"], (6, 4), {"transA": 1}),
        ("Add", ["n", "k"], (6,), {}),
        ("Conv", ["n", "k", 5], (4, 6, 1), {}),
        ("Conv", ["n", "k", 5], (6, 2, 1), {"group": 3}),
        ("ConvTranspose", ["n", "k", 5], (6, 2, 1), {}),
        ("LayerNormalization", ["n", "k"], (6,), {}),
    ],
)
def test_weights_decide_open_sizes(op: str, x: Shape, w: tuple[int, ...], attributes: dict[str, Any]) -> None:
    graph = imported([node(op, ["x", "w"], **attributes)], {"x": x}, w=np.ones(w, F32))
    assert shapes(graph)["x"] == [("6" if d == "k" else str(d)) for d in x]
    assert [s.var.name for s in graph.symbols] == ["n"]


def test_two_names_of_one_size() -> None:
    nodes = [node("MatMul", ["x", "z"], ["p"], "a"), node("Concat", ["p", "q"], axis=1, name="b")]
    graph = imported(nodes, {"x": ["n", "k"], "z": ["l", "m"], "q": ["b", "c"]})
    found = shapes(graph)
    assert (found["x"][1], found["x"][0]) == (found["z"][0], found["q"][0])
    assert len(graph.symbols) == 4
    assert graph.conditions == ()


def test_a_size_that_is_1_is_stretched() -> None:
    found = shapes(imported([node("Add", ["x", "z"])], {"x": ["n", "k"], "z": ["n", 1]}))
    assert found["y"] == found["x"] == ["n", "k"]


def test_sizes_that_contradict_each_other() -> None:
    nodes = [node("MatMul", ["x", "v"], ["p"], "a"), node("Add", ["x", "w"], ["y"], "b")]
    with pytest.raises(ShapeError, match="b"):
        imported(nodes, {"x": ["n", "k"]}, v=np.ones((6, 2), F32), w=np.ones(5, F32))


def test_a_reshape_that_fits_some_sizes() -> None:
    graph = imported([node("Reshape", ["x", "s"], name="r")], {"x": ["n", 6]}, s=np.array([-1, 4]))
    (condition,) = graph.conditions
    assert condition.node == "Reshape node 'r'"
    assert "cannot be reshaped to" in condition.problem


def test_a_reshape_that_fits_all_sizes_has_no_condition() -> None:
    graph = imported([node("Reshape", ["x", "s"])], {"x": ["n", "m", 6]}, s=np.array([0, -1, 3]))
    assert graph.conditions == ()


def test_a_reshape_that_fits_no_size() -> None:
    with pytest.raises(ShapeError, match="whatever the open sizes are"):
        imported([node("Reshape", ["x", "s"])], {"x": ["n", 6]}, s=np.array([4, 1]))


def test_a_window_larger_than_the_image() -> None:
    graph = imported([node("Conv", ["x", "w"])], {"x": [1, 1, "h"]}, w=np.ones((1, 1, 4), F32))
    (condition,) = graph.conditions
    assert "dimension 2" in condition.problem


def test_outputs_that_are_inputs_or_initializers() -> None:
    proto = model([node("Relu", ["x"])], {"x": [2]}, ["y", "x", "w"], {"w": np.ones(3, F32)})
    graph = import_onnx(proto)
    assert len(set(graph.outputs) | set(graph.inputs)) == 4
    assert [graph.published.get(o, o) for o in graph.outputs] == ["y", "x", "w"]


def test_a_model_without_nodes() -> None:
    assert isinstance(import_onnx(model([], {"x": [2]}, ["x"])), Graph)
    assert isinstance(model([], {}), onnx.ModelProto)
