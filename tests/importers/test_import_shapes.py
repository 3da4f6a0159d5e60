"""Shapes that a model computes for itself, of known and of symbolic sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import Shape, model, node

from polycomp.expr import Var
from polycomp.graph import Graph
from polycomp.importers.onnx import import_onnx
from polycomp.options import Options


def _shape(nodes: Sequence[Any], x: Shape, **constants: Any) -> str:
    arrays = {n: np.array(v, np.int64) for n, v in constants.items()}
    graph = import_onnx(model(nodes, {"x": x}, constants=arrays))
    return str(graph.types["y"])


def _chain(*inner: Any) -> list[Any]:
    """Reshape x to what ``inner`` computes from its shape ``s`` as ``t``."""
    return [node("Shape", ["x"], ["s"], "shape"), *inner, node("Reshape", ["x", "t"], name="reshape")]


def test_gather_concat_reshape() -> None:
    inner = [
        node("Gather", ["s", "zero"], ["b"], "batch", axis=0),
        node("Unsqueeze", ["b", "zeros"], ["b1"], "row"),
        node("Concat", ["b1", "rest"], ["t"], "join", axis=0),
    ]
    assert _shape(_chain(*inner), ["n", 4, 6], zero=0, zeros=[0], rest=[-1, 12]) == "float32[n, 2, 12]"


def test_arithmetic_on_sizes() -> None:
    inner = [
        node("Slice", ["s", "zeros", "ones"], ["b"], "first"),
        node("Mul", ["b", "four"], ["m"], "times"),
        node("Div", ["m", "two"], ["d"], "half"),
        node("Cast", ["d"], ["i"], "cast", to=TensorProto.INT64),
        node("Concat", ["i", "rest"], ["t"], "join", axis=0),
    ]
    constants = {"zeros": [0], "ones": [1], "four": [4], "two": [2], "rest": [-1]}
    assert _shape(_chain(*inner), ["n", 2, 3], **constants) == "float32[(n * 2), 3]"


def test_where_replaces_minus_one() -> None:
    inner = [
        node("ConstantOfShape", ["one"], ["ones"], "fill", value=_tensor([1])),
        node("Equal", ["s", "minus"], ["e"], "equal"),
        node("Where", ["e", "one", "s"], ["w"], "where"),
        node("Max", ["w", "one"], ["m"], "max"),
        node("ReduceProd", ["m"], ["p"], "product", keepdims=1),
        node("Identity", ["p"], ["t"], "same"),
    ]
    assert _shape(_chain(*inner), ["n", "m"], one=[1], minus=[-1]) in ("float32[(m * n)]", "float32[(n * m)]")


def _tensor(values: list[int]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, np.int64))


def test_same_parameter_is_same_symbol() -> None:
    proto = model([node("Add", ["x", "z"])], {"x": ["batch size", 3], "z": ["batch size", 3]})
    graph = import_onnx(proto)
    assert [s.var for s in graph.symbols] == [Var("batch_size")]
    assert graph.types["y"].shape == (Var("batch_size"), 3)


def test_unnamed_dimension_gets_a_name() -> None:
    graph = import_onnx(model([node("Relu", ["x"])], {"x": [None, 3]}))
    assert [s.var.name for s in graph.symbols] == ["x_dim0"]


def test_fixed_shape() -> None:
    graph = import_onnx(model([node("Relu", ["x"])], {"x": ["n", 3]}), Options(shapes={"x": (5, 3)}))
    assert str(graph.types["y"]) == "float32[5, 3]"
    assert graph.symbols == ()


def test_slice_of_a_table_bounds_the_symbol() -> None:
    nodes = [
        node("Shape", ["x"], ["s"], "shape", start=1, end=2),
        node("Slice", ["table", "zero", "s", "one"], ["p"], "positions"),
        node("Add", ["x", "p"], name="sum"),
    ]
    table = np.zeros((1, 512), np.float32)
    proto = model(nodes, {"x": ["n", "seq"]}, constants={"table": table, "zero": np.array([0]), "one": np.array([1])})
    graph = import_onnx(proto)
    assert {s.var.name: s.maximum for s in graph.symbols} == {"n": None, "seq": 512}
    assert str(graph.types["y"]) == "float32[n, seq]"


def test_range_of_a_symbolic_size() -> None:
    nodes = [
        node("Shape", ["x"], ["s"], "shape", start=0, end=1),
        node("Squeeze", ["s"], ["n"], "scalar"),
        node("Range", ["zero", "n", "one"], ["r"], "range"),
        node("Cast", ["r"], ["y"], "cast", to=TensorProto.FLOAT),
    ]
    assert _shape(nodes, ["n"], zero=0, one=1) == "float32[n]"


@pytest.mark.parametrize(("start", "end", "step"), [(0, 9, 2), (-2, 100, 1), (5, 1, -2), (-1, -100, -1), (3, 3, 1)])
def test_slices_of_known_sizes(start: int, end: int, step: int) -> None:
    nodes = [node("Slice", ["x", "b", "e", "a", "t"])]
    expected = len(range(7)[start:end:step])
    assert _shape(nodes, [2, 7], b=[start], e=[end], a=[1], t=[step]) == f"float32[2, {expected}]"


def test_symbolic_value_as_data() -> None:
    """A size that is read as a tensor is made of ranges of one element."""
    nodes = [
        node("Shape", ["x"], ["s"], "shape"),
        node("Cast", ["s"], ["f"], "cast", to=TensorProto.FLOAT),
        node("Mul", ["f", "f"], name="square"),
    ]
    graph: Graph = import_onnx(model(nodes, {"x": ["n", 3]}))
    assert str(graph.types["y"]) == "float32[2]"
    assert [n.op for n in graph.nodes] == ["Range", "Range", "Concat", "Cast", "Mul"]
