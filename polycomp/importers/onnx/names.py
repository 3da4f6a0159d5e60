"""What a model's nodes are called in errors, profiles and reports."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def node_names(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """A unique name per node; one without a name is called after its operator and what it makes."""
    taken: set[str] = set()
    names = []
    for position, node in enumerate(nodes):
        name = node.name or ":".join((node.op_type, *filter(None, node.output[:1])))
        if name in taken:
            name = f"{name}_{position}"
        taken.add(name)
        names.append(name)
    return names
