"""The ONNX backend interface."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import polycomp.backend.onnx as backend
from polycomp.errors import InputError, TargetError


def divide() -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, "n"]) for name in ("x", "y", "z")]
    graph = helper.make_graph([helper.make_node("Div", ["x", "y"], ["z"])], "divide", infos[:2], infos[2:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = X + 1


def test_inputs_are_given_in_order_or_by_name() -> None:
    prepared = backend.prepare(divide(), threads=1, cache=False, jobs=1)
    for outputs in (prepared.run([X, Y]), prepared.run({"y": Y, "x": X})):
        np.testing.assert_allclose(outputs[0], X / Y, rtol=1e-6)
    np.testing.assert_array_equal(prepared.run([X, Y])["z"], prepared.run([X, Y])[0])  # type: ignore[call-overload]


def test_a_model_is_run_at_once() -> None:
    np.testing.assert_allclose(backend.run_model(divide(), [X, Y], cache=False)[0], X / Y, rtol=1e-6)


def test_a_number_of_inputs_that_does_not_fit() -> None:
    with pytest.raises(InputError, match="1 inputs were given, but there are 2: x, y"):
        backend.prepare(divide(), cache=False).run(X)


def test_a_node_takes_axes_and_shapes_as_inputs() -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    (outputs,) = backend.run_node(node, [X, np.array([1])], cache=False)
    np.testing.assert_array_equal(outputs, X.sum(1))


def test_a_node_of_an_older_opset() -> None:
    node = helper.make_node("Unsqueeze", ["x"], ["y"], axes=[0])
    (outputs,) = backend.run_node(node, [X], opset_version=11, cache=False)
    np.testing.assert_array_equal(outputs, X[None])


def test_devices() -> None:
    assert backend.supports_device("CPU:0") and not backend.supports_device("CUDA")
    with pytest.raises(TargetError, match="polycomp has no device 'CUDA'; it has CPU"):
        backend.prepare(divide(), "CUDA")


def test_compatible_is_what_can_be_imported() -> None:
    unknown = divide()
    unknown.graph.node[0].op_type = "StringConcat"
    assert backend.is_compatible(divide()) and not backend.is_compatible(unknown)
    assert not backend.is_compatible(divide(), "CUDA")
