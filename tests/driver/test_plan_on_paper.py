"""Programs executed on paper: every kernel finds, where it reads, what was put there for it.

Each element that a kernel writes gets a number of its own. Reshapes, slices and concatenations hand numbers on by
numpy's rules; the memory that a layout describes must then hold the same numbers whenever they are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from polycomp.driver.lower import Lowered, lower_graph, value_type
from polycomp.driver.program import Layout, lay_out
from polycomp.expr import Var
from polycomp.graph import Graph, Node
from polycomp.importers.onnx import import_onnx
from polycomp.loops.program import Operand, Storage
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.te import Dim
from polycomp.te.evaluate import evaluate_dim

Array = np.ndarray[Any, Any]
Sizes = Mapping[Var, int]
Rows = int | None  # None: bound at run time
_WORD = 4


class Paper:
    """Memory by storage, in words; ``numbers`` of the elements of every value."""

    def __init__(self, lowered: Lowered, layout: Layout, sizes: Sizes) -> None:
        self.lowered, self.layout, self.sizes = lowered, layout, sizes
        self.memory: dict[tuple[Storage, int], Array] = {}
        self.numbers: dict[str, Array] = {}
        self.count = itertools.count(1)

    def number(self, name: str) -> Array:
        """New numbers for a value's elements."""
        shape = tuple(evaluate_dim(d, self.sizes) for d in value_type(self.lowered.graph, name).shape)
        found = np.fromiter(self.count, np.int64, count=int(np.prod(shape))).reshape(shape)
        self.numbers[name] = found
        return found

    def words(self, operand: Operand, count: int) -> Array:
        """The place of an operand of ``count`` words."""
        whole = self.memory.setdefault((operand.storage, operand.position), np.zeros(1 << 14, np.int64))
        begin = self.offset(operand) // _WORD
        return whole[begin : begin + count]

    def offset(self, operand: Operand) -> int:
        return evaluate_dim(operand.offset, self.sizes)

    def put(self, name: str) -> None:
        numbers = self.numbers[name]
        self.words(self.layout.operands[name], numbers.size)[:] = numbers.reshape(-1)

    def expect(self, name: str, operand: Operand, numbers: Array) -> None:
        np.testing.assert_array_equal(self.words(operand, numbers.size), numbers.reshape(-1), name)

    def run(self) -> None:
        graph = self.lowered.graph
        for name in (*graph.inputs, *graph.constants):
            self.number(name)
            if name in self.layout.operands:
                self.put(name)
        calls = {call.outputs: call for call in self.lowered.calls}
        for group in graph.groups:
            if group.shares:
                self.numbers.update(zip(group.outputs, self.moved(group.anchor), strict=True))
            else:
                for name in calls[group.outputs].outputs:
                    self.number(name)
        for call in self.lowered.calls:
            if call.symbol.startswith("copy_"):
                self.numbers[call.outputs[0]] = self.numbers[call.inputs[0]]
            for name in call.inputs:
                self.expect(name, self.layout.operands[name], self.numbers[name])
            for name in call.outputs:
                assert self.offset(self.layout.operands[name]) % 64 == 0
                self.put(name)
            self.check_apart(call.inputs, call.outputs)

    def moved(self, node: Node) -> list[Array]:
        """The numbers of what a node makes that shares memory."""
        inputs = [self.numbers[i] for i in node.inputs]
        if node.op == "Concat":
            return [np.concatenate(inputs, node.attributes["axis"])]
        if node.op == "Slice":
            begins, counts = ([self.value(d) for d in node.attributes[n]] for n in ("starts", "sizes"))
            return [inputs[0][tuple(slice(b, b + n) for b, n in zip(begins, counts, strict=True))]]
        return [inputs[0].reshape([self.value(d) for d in self.lowered.graph.types[node.outputs[0]].shape])]

    def value(self, dim: Dim) -> int:
        return evaluate_dim(dim, self.sizes)

    def check_apart(self, read: tuple[str, ...], written: tuple[str, ...]) -> None:
        """What a kernel writes overlaps nothing else that it is given."""
        for name, other in itertools.product(written, (*read, *written)):
            (a, a_end), (b, b_end) = self.extent(name), self.extent(other)
            assert name == other or a[:2] != b[:2] or a_end <= b[2] or b_end <= a[2], (name, other)

    def extent(self, name: str) -> tuple[tuple[Storage, int, int], int]:
        operand = self.layout.operands[name]
        begin = self.offset(operand)
        return (operand.storage, operand.position, begin), begin + self.numbers[name].size * _WORD


@st.composite
def models(draw: st.DrawFn, open_rows: bool) -> onnx.ModelProto:
    """Matrices of 16 columns, joined and cut along their rows, and operators that make new ones. Nothing is unused."""
    values: list[tuple[str, Rows]] = [("x0", None if open_rows else 2), ("x1", 3), ("c0", 1)]
    integers = [numpy_helper.from_array(np.array([n], np.int64), f"i{n}") for n in range(13)]
    constants = [numpy_helper.from_array(np.zeros((1, 16), np.float32), "c0"), *integers]
    nodes = []
    for number in range(draw(st.integers(4, 20))):
        name = f"v{number}"
        x, rows = draw(st.sampled_from(values[-8:]))
        kind = draw(st.sampled_from([*["Softmax", "Concat"] * 3, "Relu", "Slice", "Slice", "Flatten", "Add"]))
        if kind == "Slice" and rows is not None and rows > 1:
            begin = draw(st.integers(0, rows - 1))
            rows = draw(st.integers(1, rows - begin))
            nodes.append(helper.make_node("Slice", [x, f"i{begin}", f"i{begin + rows}"], [name]))
        elif kind == "Concat":
            parts = [(x, rows), *draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))]
            sizes = [r for _, r in parts if r is not None]
            if sum(sizes) > 12:
                continue
            rows = sum(sizes) if len(sizes) == len(parts) else None
            nodes.append(helper.make_node("Concat", [p for p, _ in parts], [name], axis=0))
        elif kind == "Add":
            alike = [v for v, r in values if r == rows and r is not None] or [x]
            nodes.append(helper.make_node("Add", [x, draw(st.sampled_from(alike))], [name]))
        else:
            nodes.append(helper.make_node(kind if kind != "Slice" else "Relu", [x], [name]))
        values.append((name, rows))
    read = {i for n in nodes for i in n.input}
    outputs = draw(st.lists(st.sampled_from([v for v, _ in values[2:]]), max_size=2, unique=True))
    for name in [v for v, _ in values if v not in (*read, *outputs)]:  # a reader at the end, so that nothing is dead
        nodes.append(helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0))
        outputs.append(f"{name}_sum")
    infos = [helper.make_tensor_value_info(v, TensorProto.FLOAT, [r or "n", 16]) for v, r in values[:2]]
    results = [helper.make_tensor_value_info(v, TensorProto.FLOAT, None) for v in outputs]
    graph = helper.make_graph(nodes, "paper", infos, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def lowered_graph(model: onnx.ModelProto) -> tuple[Graph, Lowered]:
    graph = run_passes(import_onnx(model, Options()), Options())
    return graph, lower_graph(graph)


def execute(model: onnx.ModelProto, rows: int) -> None:
    graph, lowered = lowered_graph(model)
    paper = Paper(lowered, lay_out(lowered), {s.var: rows for s in graph.symbols})
    paper.run()
    for position, (name, made) in enumerate(zip(graph.outputs, lowered.graph.outputs, strict=True)):
        assert np.array_equal(paper.numbers[name], paper.numbers[made])
        paper.expect(name, Operand(Storage.OUTPUT, position), paper.numbers[name])


@settings(derandomize=True, max_examples=80, deadline=None)
@given(models(open_rows=False))
def test_known_sizes(model: onnx.ModelProto) -> None:
    execute(model, 0)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(models(open_rows=True), st.sampled_from([1, 5]))
def test_sizes_that_are_bound_at_each_run(model: onnx.ModelProto, rows: int) -> None:
    execute(model, rows)
