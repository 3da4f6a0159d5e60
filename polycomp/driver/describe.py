"""What a module keeps about itself for people: operators, nodes and the memory plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from polycomp.driver.lower import Lowered
from polycomp.driver.manifest import dimension
from polycomp.driver.memory import Lifetime
from polycomp.driver.program import Layout
from polycomp.driver.work import known
from polycomp.graph.ir import Graph
from polycomp.te import Dim


def module_metadata(imported: Graph, lowered: Lowered, layout: Layout, tuned: Mapping[str, str]) -> dict[str, Any]:
    """What ``polycomp inspect`` shows beyond the manifest, as JSON: the model's operators, nodes and memory plan, and
    what passes have decided, by problem, and of the kernels and problems whose decisions come from a tuning log, by
    symbol or problem, for how near a target they were made."""
    symbols = {output: call.symbol for call in lowered.calls for output in call.outputs}
    kernel_of = {n.name: symbols.get(g.outputs[0], "") for g in lowered.graph.groups for n in g.nodes}
    types = lowered.graph.types
    total: Dim = 0
    for call in lowered.calls:
        total = known(total + call.flops)
    return {
        "flops": dimension(total),
        "tuned": dict(tuned),
        "decided": {s.problem: {s.decision.name: s.decision.value} for s in lowered.graph.sites},
        "operators": dict(Counter(node.op for node in imported.nodes).most_common()),
        "nodes": [
            {"name": n.name, "op": n.op, "type": str(types[n.outputs[0]]), "kernel": kernel_of.get(n.name, "")}
            for n in lowered.graph.nodes
        ],
        "memory": [_memory_entry(t, layout.plan.offsets[b.name]) for b in layout.blocks for t in b.tensors],
    }


def _memory_entry(tensor: Lifetime, block: Dim) -> dict[str, Any]:
    offset = known(block + tensor.offset)
    steps = [tensor.first, tensor.last]
    return {"value": tensor.name, "bytes": dimension(tensor.bytes), "offset": dimension(offset), "steps": steps}
