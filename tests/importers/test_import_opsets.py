"""Operators whose inputs and attributes changed from opset to opset, against the ONNX reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from graph_oracle import evaluate_graph
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import Array, model, node

from polycomp.importers.onnx import import_onnx

X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4)


def _agrees(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
    graph = import_onnx(proto)
    found = evaluate_graph(graph, {n: feeds[n] for n in graph.inputs})
    names = [o.name for o in proto.graph.output]
    for name, expected in zip(names, ReferenceEvaluator(proto).run(names, dict(feeds)), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)


def _check(opset: int, op: str, *constants: Any, **attributes: Any) -> None:
    arrays = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    inputs = ["x", *(f"c{i}" if c is not None else "" for i, c in enumerate(constants))]
    proto = model([node(op, inputs, **attributes)], {"x": X.shape}, constants=arrays, opset=opset)
    _agrees(proto, {"x": X})


@pytest.mark.parametrize("opset", [7, 11, 13, 21])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    axes = {"axes": [0, 3]} if opset < 13 else {}
    _check(opset, "Unsqueeze", *(() if opset < 13 else ([0, 3],)), **axes)


@pytest.mark.parametrize("opset", [7, 11, 13, 18])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax"])
def test_reductions(opset: int, op: str) -> None:
    as_input = opset >= (13 if op == "ReduceSum" else 18)
    for keep in (0, 1):
        _check(opset, op, *(([1, -1],) if as_input else ()), **({} if as_input else {"axes": [1, 2]}), keepdims=keep)
        _check(opset, op, keepdims=keep)


@pytest.mark.parametrize(("opset", "axis"), [(7, 0), (7, 1), (11, 1), (11, 2), (13, 0), (13, -2)])
def test_softmax(opset: int, axis: int) -> None:
    """Before opset 13 everything from the axis on is normalised together (the ONNX reference does not know that)."""
    graph = import_onnx(model([node("Softmax", ["x"], axis=axis)], {"x": X.shape}, opset=opset))
    together = tuple(range(axis, 3)) if opset < 13 else axis
    expected = np.exp(X) / np.exp(X).sum(axis=together, keepdims=True)
    np.testing.assert_allclose(evaluate_graph(graph, {"x": X})["y"], expected, rtol=1e-5)


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_clip(opset: int) -> None:
    if opset < 11:
        _check(opset, "Clip", min=-1.0, max=0.5)
        _check(opset, "Clip", max=0.5)
    else:
        _check(opset, "Clip", np.float32(-1), np.float32(0.5))
        _check(opset, "Clip", None, np.float32(0.5))


def test_slice() -> None:
    _check(9, "Slice", starts=[0, -3], ends=[1, 2**31 - 1], axes=[0, 2])
    _check(10, "Slice", [1, -1], [9, -9], [1, 2], [1, -2])
    _check(13, "Slice", [1, 0, 2], [2, 3, 4])


def test_pad() -> None:
    _check(10, "Pad", pads=[0, 1, 0, 0, 0, 2], value=1.5)
    _check(11, "Pad", [0, 1, 0, 0, 0, 2], np.float32(1.5))
    _check(13, "Pad", [0, 1, 0, 0, 0, 2], mode="edge")
    _check(18, "Pad", [1, 2], np.float32(0), [2])


def test_negative_pads_cut() -> None:
    arrays = {"p": np.array([0, -1, 0, 0, 0, 2])}
    graph = import_onnx(model([node("Pad", ["x", "p"])], {"x": X.shape}, constants=arrays))
    expected = np.pad(X[:, 1:], [(0, 0), (0, 0), (0, 2)])
    assert np.array_equal(evaluate_graph(graph, {"x": X})["y"], expected)


def test_split() -> None:
    for opset, constants, attributes in (
        (11, (), {"split": [1, 3]}),
        (13, ([1, 3],), {}),
        (13, (), {}),
        (18, (), {"num_outputs": 2}),
    ):
        arrays = {f"c{i}": np.array(c) for i, c in enumerate(constants)}
        nodes = [node("Split", ["x", *arrays], ["y", "z"], axis=2, **attributes)]
        _agrees(model(nodes, {"x": X.shape}, ["y", "z"], arrays, opset), {"x": X})


def test_resize_and_upsample() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    scales = np.array([1, 1, 2, 2], np.float32)
    cases = [
        (9, [node("Upsample", ["x", "s"], mode="nearest")]),
        (11, [node("Resize", ["x", "e", "s"], mode="linear", coordinate_transformation_mode="asymmetric")]),
        (13, [node("Resize", ["x", "", "s"], mode="linear")]),
        (18, [node("Resize", ["x", "", "", "t"], mode="nearest", axes=[2, 3])]),
    ]
    constants = {"s": scales, "e": np.zeros(0, np.float32), "t": np.array([6, 3])}
    for opset, nodes in cases:
        used = {n: a for n, a in constants.items() if n in nodes[0].input}
        if opset == 9:  # removed from the reference: the same as a Resize of the next opset
            graph = import_onnx(model(nodes, {"x": image.shape}, constants=used, opset=opset))
            np.testing.assert_allclose(evaluate_graph(graph, {"x": image})["y"], image.repeat(2, 2).repeat(2, 3))
        else:
            _agrees(model(nodes, {"x": image.shape}, constants=used, opset=opset), {"x": image})


def test_dropout_is_the_identity() -> None:
    for opset in (7, 12, 13):
        graph = import_onnx(model([node("Dropout", ["x"])], {"x": X.shape}, opset=opset))
        assert np.array_equal(evaluate_graph(graph, {"x": X})["y"], X)


@pytest.mark.parametrize(
    "attributes",
    [
        {"value": numpy_helper.from_array(X)},
        {"value_float": 2.5},
        {"value_floats": [1.0, 2.0, 3.0, 4.0]},
        {"value_int": 3},
        {"value_ints": [1, 2, 3, 4]},
    ],
    ids=lambda a: next(iter(a)),
)
def test_constants_of_all_forms(attributes: dict[str, Any]) -> None:
    kinds = {"value_int": TensorProto.INT64, "value_ints": TensorProto.INT64}
    kind = kinds.get(next(iter(attributes)), TensorProto.FLOAT)
    nodes = [node("Constant", [], ["c"], "c", **attributes), node("Add", ["x", "c"])]
    proto = model(nodes, {"x": X.shape}, dtypes={"x": kind, "y": kind}, opset=13)
    _agrees(proto, {"x": X if kind == TensorProto.FLOAT else X.astype(np.int64)})


def test_initializers_listed_as_inputs_are_constants() -> None:
    proto = model([node("Add", ["x", "w"])], {"x": X.shape, "w": [4]}, constants={"w": np.ones(4, np.float32)})
    assert import_onnx(proto).inputs == ("x",)


def test_local_functions_are_expanded() -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["m"]), helper.make_node("Neg", ["m"], ["r"])]
    function = helper.make_function("acme", "NegSquare", ["a"], ["r"], body, [helper.make_opsetid("", 17)])
    proto = model([helper.make_node("NegSquare", ["x"], ["y"], domain="acme")], {"x": X.shape})
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    proto.functions.append(function)
    _agrees(proto, {"x": X})


def test_defined_operators_are_expanded() -> None:
    shape = [1, 2, 3, 4]
    proto = model([node("Attention", ["x", "x", "x"])], {"x": shape}, opset=23)
    _agrees(proto, {"x": X.reshape(shape)})


def test_outputs_keep_their_names() -> None:
    nodes = [node("Relu", ["x"], ["a"], "r"), node("Identity", ["a"], ["y"], "i"), node("Identity", ["a"], ["z"], "j")]
    graph = import_onnx(model(nodes, {"x": X.shape}, ["a", "y", "z"]))
    assert graph.outputs == ("a", "y", "z")
    found = evaluate_graph(graph, {"x": X})
    assert all(np.array_equal(found[n], np.maximum(X, 0)) for n in graph.outputs)
