"""The graph IR: operators on named tensors, and the groups of them that become kernels."""

from polycomp.graph.ir import (
    Call,
    Condition,
    Graph,
    Group,
    Infer,
    Lower,
    Node,
    Operator,
    OpKind,
    Site,
    Symbol,
    TensorType,
)
from polycomp.graph.printer import to_text
from polycomp.graph.verify import verify

__all__ = [
    "Call",
    "Condition",
    "Graph",
    "Group",
    "Infer",
    "Lower",
    "Node",
    "OpKind",
    "Operator",
    "Site",
    "Symbol",
    "TensorType",
    "to_text",
    "verify",
]
