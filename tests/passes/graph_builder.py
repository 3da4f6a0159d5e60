"""Graphs of canonical operators for the passes' tests, and checks that a pass keeps what they compute."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from graph_oracle import evaluate_graph

from polycomp.dtypes import DType, as_dtype
from polycomp.graph import Call, Graph, Node, TensorType, verify
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.te import Dim

Array = np.ndarray[Any, Any]


class Make:
    """Builds a graph: every method gives the name of the value it adds."""

    def __init__(self) -> None:
        self.inputs: list[str] = []
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.random = np.random.default_rng(3)

    def input(self, *shape: Dim, dtype: str = "float32") -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(name)
        self.types[name] = TensorType(as_dtype(dtype), shape)
        return name

    def constant(self, value: Any, dtype: str = "float32") -> str:
        array = np.asarray(value, dtype)
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        self.types[name] = TensorType(as_dtype(dtype), array.shape)
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.random.uniform(0.5, 1.5, shape))

    def op(self, op: str, *inputs: str, n_outputs: int = 1, **attributes: Any) -> Any:
        name = f"n{len(self.nodes)}"
        call = Call(name, op, tuple(self.types[i] if i else None for i in inputs), attributes, n_outputs)
        types = operators()[op].infer(call)
        outputs = tuple(f"{name}.{i}" for i in range(len(types)))
        self.types.update(zip(outputs, types, strict=True))
        self.nodes.append(Node(name, op, inputs, outputs, attributes, (name,)))
        return outputs[0] if n_outputs == 1 else outputs

    def graph(self, *outputs: str, **fields: Any) -> Graph:
        graph = Graph("g", tuple(self.inputs), outputs, tuple(self.nodes), self.types, self.constants, **fields)
        verify(graph, operators())
        return graph

    def conv(self, x: str, w: str, *bias: str, group: int = 1, pad: int = 1, stride: int = 1) -> str:
        sizes = {"strides": (stride,) * 2, "dilations": (1, 1), "pads": (pad,) * 4, "group": group}
        return str(self.op("Conv", x, w, *bias, **sizes))


def feeds_of(graph: Graph, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Random inputs; a symbol has the size that ``sizes`` gives it."""
    random = np.random.default_rng(5)
    feeds: dict[str, Array] = {}
    for name in graph.inputs:
        kind = graph.types[name]
        shape = tuple(d if isinstance(d, int) else (sizes or {})[str(d)] for d in kind.shape)
        if kind.dtype.is_float:
            feeds[name] = random.standard_normal(shape).astype(kind.dtype.numpy)
        else:
            feeds[name] = random.integers(0, 2 if kind.dtype is DType.BOOL else 5, shape).astype(kind.dtype.numpy)
    return feeds


def check(
    graph: Graph, run: Callable[[Graph, Options], Graph], sizes: Mapping[str, int] | None = None, **options: Any
) -> Graph:
    """What ``run`` makes of ``graph``, after checking that it is well formed and computes the same."""
    changed = run(graph, Options(**options))
    verify(changed, operators())
    assert changed.outputs == graph.outputs
    feeds = feeds_of(graph, sizes)
    expected, found = evaluate_graph(graph, feeds), evaluate_graph(changed, feeds)
    for output in graph.outputs:
        np.testing.assert_allclose(found[output], expected[output], rtol=2e-4, atol=1e-5)
    return dataclasses.replace(changed)


def ops(graph: Graph) -> dict[str, int]:
    """How often each operator occurs."""
    return dict(Counter(n.op for n in graph.nodes))
