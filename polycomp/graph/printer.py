"""Graphs as text, for ``--print-after`` and error reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.graph.ir import Graph, Group, Node


def to_text(graph: Graph) -> str:
    """One line per node: ``outputs: types = Operator(inputs) {attributes}``, in blocks when there are groups."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    inputs = ", ".join(f"{i}: {graph.types[i]}" for i in graph.inputs)
    yield f"graph {graph.name}({inputs}) -> ({', '.join(graph.outputs)})"
    for symbol in graph.symbols:
        limit = "" if symbol.maximum is None else f" <= {symbol.maximum}"
        yield f"  size {symbol.minimum} <= {symbol.var}{limit}"
    for name, array in graph.constants.items():
        yield f"  {name}: {graph.types[name]} = {_constant(array)}"
    if not graph.groups:
        yield from (f"  {_node(graph, n)}" for n in graph.nodes)
    for group in graph.groups:
        yield from _group(graph, group)


def _group(graph: Graph, group: Group) -> Iterator[str]:
    shares = " sharing memory" if group.shares else ""
    yield f"  group {group.name}({', '.join(group.inputs)}) -> ({', '.join(group.outputs)}){shares}"
    for node in group.nodes:
        yield f"   {'*' if node is group.anchor else ' '} {_node(graph, node)}"


def _node(graph: Graph, node: Node) -> str:
    outputs = ", ".join(f"{o}: {graph.types[o]}" for o in node.outputs)
    attributes = ", ".join(f"{k}={_value(v)}" for k, v in node.attributes.items())
    tail = f" {{{attributes}}}" if attributes else ""
    return f"{outputs} = {node.op}({', '.join(i or '-' for i in node.inputs)}){tail}"


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return value.value if isinstance(value, DType) else str(value)


def _constant(array: np.ndarray[Any, Any]) -> str:
    if array.size <= 8:
        return str(array.tolist())
    return f"{array.nbytes} bytes"
