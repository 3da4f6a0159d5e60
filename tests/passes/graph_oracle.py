"""A graph's value by its operators' definitions: what every pass must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from polycomp.expr import Var
from polycomp.graph import Graph, TensorType
from polycomp.ops import operators
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate, evaluate_dim

Array = np.ndarray[Any, Any]


def evaluate_graph(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name, node by node; sizes are taken from the feeds."""
    sizes = _sizes(graph, feeds)
    values: dict[str, Array] = {**graph.constants, **feeds}
    for node in graph.nodes:
        types = [graph.types[i] if i else None for i in node.inputs]
        tensors = [
            None if t is None else placeholder(t.shape, t.dtype, i) for i, t in zip(node.inputs, types, strict=True)
        ]
        outputs = operators()[node.op].lower(graph.call(node), tensors)
        given = {t: values[i] for t, i in zip(tensors, node.inputs, strict=True) if t is not None}
        values.update(zip(node.outputs, evaluate(outputs, given, sizes), strict=True))
        for output in node.outputs:
            expected = _bind(graph.types[output], sizes)
            assert values[output].shape == expected.shape, (node, values[output].shape, expected)
    return {o: values[o] for o in graph.outputs}


def _bind(kind: TensorType, sizes: Mapping[Var, int]) -> TensorType:
    return TensorType(kind.dtype, tuple(evaluate_dim(d, sizes) for d in kind.shape))


def _sizes(graph: Graph, feeds: Mapping[str, Array]) -> dict[Var, int]:
    sizes: dict[Var, int] = {}
    for name in graph.inputs:
        for dim, size in zip(graph.types[name].shape, feeds[name].shape, strict=True):
            if isinstance(dim, Var):
                sizes[dim] = size
    return sizes
