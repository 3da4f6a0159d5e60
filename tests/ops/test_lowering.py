"""Nodes and groups of a graph as tensor expressions."""

import numpy as np
import pytest
from operator_harness import data

from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import CheckedIndex, walk
from polycomp.graph import Graph, Group, Node, TensorType
from polycomp.ops import operators
from polycomp.ops.lowering import lower_group, lower_nodes
from polycomp.ops.registry import family
from polycomp.te import placeholder, topological_order
from polycomp.te.evaluate import evaluate

F = DType.FLOAT32


def chain():
    """softmax(x * 0.125) + 1, where the literals are constants of the graph."""
    matrix = TensorType(F, (3, 5))
    types = {"x": matrix, "c": TensorType(F, ()), "one": TensorType(F, (1, 1)), "m": matrix, "s": matrix, "y": matrix}
    nodes = (
        Node("scale", "Mul", ("x", "c"), ("m",), sources=("/attention/Mul",)),
        Node("softmax", "Softmax", ("m",), ("s",), {"axis": -1}, ("/attention/Softmax",)),
        Node("add", "Add", ("s", "one"), ("y",)),
    )
    constants = {"c": np.float32(0.125), "one": np.ones((1, 1), np.float32)}
    group = Group("g", nodes, ("x", "c", "one"), ("y",), nodes[1])
    return Graph("graph", ("x",), ("y",), nodes, types, constants, groups=(group,))


def test_a_group_is_a_chain_of_named_tensors_with_literals():
    graph = chain()
    inputs, (y,) = lower_group(graph, graph.groups[0])
    tensors = topological_order([y])
    assert [t.name for t in inputs] == ["x", "c", "one"]
    assert [t.name for t in tensors] == ["x", "m", "s.max", "s.exp", "s.sum", "s", "y"]
    assert [t.source for t in tensors[1:]] == ["/attention/Mul", *["/attention/Softmax"] * 4, "add"]
    assert str(tensors[1].body) == "(x[i0, i1] * float32(0.125))"
    x = data((3, 5))
    powers = np.exp(x * 0.125)
    want = powers / powers.sum(1, keepdims=True) + 1
    np.testing.assert_allclose(evaluate([y], {inputs[0]: x})[0], want, rtol=1e-6)


def test_a_value_from_outside_of_the_group_is_an_error():
    graph = chain()
    with pytest.raises(CompileError, match="Softmax 'softmax' reads 'm', which is not an input of its group"):
        lower_nodes(graph, graph.nodes[1:], {})


def test_a_literal_index_is_resolved():
    types = {"x": TensorType(F, (4, 2)), "i": TensorType(DType.INT64, ()), "y": TensorType(F, (2,))}
    node = Node("gather", "Gather", ("x", "i"), ("y",), {"axis": 0})
    graph = Graph("g", ("x",), ("y",), (node,), types, {"i": np.array(-1)})
    y = lower_nodes(graph, [node], {"x": placeholder((4, 2), F, "x")})["y"]
    assert not [e for e in walk(y.body) if isinstance(e, CheckedIndex)]
    assert str(y.body) == "x[3, i0]"


def test_operators_are_registered_once():
    assert {"Add", "Conv", "MatMul", "Softmax", "Reshape"} <= set(operators())
    with pytest.raises(ValueError, match="operators defined twice: Add"):
        family(operators()["Add"], operators()["Add"])
