"""Graphs and memory plans for people: as text, and as what a module keeps about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from polycomp.driver.lower import Lowered
from polycomp.driver.memory import Lifetime
from polycomp.driver.program import Layout
from polycomp.graph.ir import Graph, Node
from polycomp.te import Dim


def module_metadata(imported: Graph, lowered: Lowered, layout: Layout) -> dict[str, Any]:
    """What ``polycomp inspect`` shows beyond the manifest, as JSON: the model's operators, nodes and memory plan."""
    symbols = {output: call.symbol for call in lowered.calls for output in call.outputs}
    kernel_of = {n.name: symbols.get(g.outputs[0], "") for g in lowered.graph.groups for n in g.nodes}
    types = lowered.graph.types
    return {
        "operators": dict(Counter(node.op for node in imported.nodes).most_common()),
        "nodes": [
            {"name": n.name, "op": n.op, "type": str(types[n.outputs[0]]), "kernel": kernel_of.get(n.name, "")}
            for n in lowered.graph.nodes
        ],
        "memory": [_memory_entry(t, layout.plan.offsets[t.name]) for t in layout.lifetimes],
    }


def _memory_entry(tensor: Lifetime, offset: Dim) -> dict[str, Any]:
    steps = [tensor.first, tensor.last]
    return {"value": tensor.name, "bytes": str(tensor.bytes), "offset": str(offset), "steps": steps}


def graph_text(graph: Graph) -> str:
    """One line per input, node and output; nodes of one group are indented under its name."""
    lines = [f"graph {graph.name}"]
    lines += [f"size {s.var} in {s.minimum}..{'' if s.maximum is None else s.maximum}" for s in graph.symbols]
    lines += [f"input {name}: {graph.types[name]}" for name in graph.inputs]
    if graph.groups:
        for group in graph.groups:
            lines.append(f"{group.name}:")
            lines += [f"    {node_text(graph, node)}" for node in group.nodes]
    else:
        lines += [node_text(graph, node) for node in graph.nodes]
    lines += [f"output {name}: {graph.types[name]}" for name in graph.outputs]
    return "\n".join(lines)


def node_text(graph: Graph, node: Node) -> str:
    """``y: float32[2, 3] = Op{attribute}(x, 2.0)``."""
    results = ", ".join(f"{name}: {graph.types[name]}" for name in node.outputs)
    operands = ", ".join(_operand_text(graph, name) for name in node.inputs)
    return f"{results} = {node.op}{_attributes_text(node.attributes)}({operands})"


def _operand_text(graph: Graph, name: str) -> str:
    array = graph.constants.get(name)
    if array is not None and array.size == 1:
        return str(array.item())
    return name or "-"


def _attributes_text(attributes: Mapping[str, Any]) -> str:
    given = ", ".join(f"{key}={_value_text(value)}" for key, value in attributes.items())
    return f"{{{given}}}" if given else ""


def _value_text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value_text, value))}]"
    if isinstance(value, np.ndarray):
        return f"array{list(value.shape)}"
    return repr(value) if isinstance(value, str) else str(value)
