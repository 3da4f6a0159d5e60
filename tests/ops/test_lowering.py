"""Nodes and groups of a graph as tensor expressions."""

import numpy as np
import pytest
from operator_harness import assert_close, data

from polycomp.dtypes import DType, as_dtype
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
    assert [t.name for t in tensors] == ["x", "m", "s.max", "s.exp", "s.sum", "s.inverse", "s", "y"]
    assert [t.source for t in tensors[1:]] == ["/attention/Mul", *["/attention/Softmax"] * 5, "add"]
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


def with_literals(op, x, *literals, **attributes):
    """``op`` on the array ``x`` and on graph constants of one element."""
    names = ["x", *(f"c{i}" for i in range(len(literals)))]
    arrays = dict(zip(names, [x, *literals], strict=True))
    types = {n: TensorType(as_dtype(a.dtype), a.shape) for n, a in arrays.items()}
    node = Node("node", op, tuple(names), ("y",), attributes)
    graph = Graph("g", ("x",), ("y",), (node,), types, {n: arrays[n] for n in names[1:]})
    given = placeholder(x.shape, types["x"].dtype, "x")
    y = lower_nodes(graph, [node], {"x": given})["y"]
    assert set(y.inputs()) <= {given}
    return evaluate([y], {given: x})[0]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1, 2.5, -2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_literal_powers(exponent, dtype):
    x = data((9,), dtype, low=0.25) if dtype != "int32" else np.arange(1, 10, dtype=np.int32)
    want = np.power(x.astype(np.float64), exponent).astype(dtype)
    assert_close(with_literals("Pow", x, np.array([exponent], np.float32)), want)


def test_literal_operands():
    x = data((3, 4))
    low, high = np.array(-1, np.float32), np.array([2], np.float32)
    assert_close(with_literals("ClipTensor", x, low, high), np.clip(x, -1, 2))
    assert_close(with_literals("Pad", x, high, pads=(1, 0, 0, 2)), np.pad(x, [(1, 0), (0, 2)], constant_values=2))
    assert_close(with_literals("Where", x > 0, low, high), np.where(x > 0, low, high))
    assert_close(with_literals("PRelu", x, low), np.where(x < 0, -x, x))
    assert_close(with_literals("Concat", x.reshape(-1), low.reshape(1), high, axis=0), np.append(x, [low, high[0]]))
    assert_close(with_literals("Mod", np.arange(-4, 5), np.array(3)), np.arange(-4, 5) % 3)
    assert_close(with_literals("Div", np.arange(-4, 5), np.array(3)), np.trunc(np.arange(-4, 5) / 3).astype(np.int64))
