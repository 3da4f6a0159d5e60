"""Which concatenations, slices and splits need no kernel, because their operands or results lie in one memory.

A Concat of whole blocks disappears when its operands are written where they belong in its result; whoever else reads
them reads them there. Slices and splits that take whole blocks are read where they are. Nothing is gained where a
kernel that runs anyway does the moving: light operators are computed while their only reader reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import Expr
from polycomp.graph import Node, OpKind
from polycomp.ops.common import product
from polycomp.ops.pieces import is_aligned, pieces
from polycomp.passes.partition import Partition
from polycomp.target import Target

EXPENSIVE = frozenset(
    [
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "Log",
        "Mish",
        "Pow",
        "Selu",
        "Celu",
        "Sigmoid",
        "Sin",
        "Sinh",
        "Softplus",
        "Swish",
        "Tan",
        "Tanh",
        "Resize",
    ]
)
"""Operators that are not computed again for every reader."""


def is_light(partition: Partition, group: int) -> bool:
    """Whether a group has element-wise and injective nodes only."""
    kinds = {partition.kind(n) for n in partition.members(group)}
    return kinds <= {OpKind.ELEMENTWISE, OpKind.INJECTIVE}


def share_memory(partition: Partition, target: Target) -> None:
    """Make views of the nodes that need no kernel. Groups with an anchor must have grown, and no others.

    A GPU's threads load vectors, so what a kernel reads begins where one does.
    """
    reads = target.vector_bytes if target.is_gpu else 1
    joined: set[str] = set()  # values that have their place in a result already
    for node in partition.graph.nodes:
        if node.op == "Concat" and _is_joined(partition, node, joined):
            partition.share(node)
            joined.update(_whole(partition, part) for part in node.inputs)
        elif node.op in ("Slice", "Split") and _is_cut(partition, node, reads):
            partition.share(node)


def _is_joined(partition: Partition, node: Node, joined: set[str]) -> bool:
    """Whether at least half of the operands can be written in their places at no cost; all of them, where the copying
    of the others is done by the only reader."""
    offsets = pieces(partition.graph.call(node))
    if not partition.is_alone(node) or offsets is None or not all(map(is_aligned, offsets)):
        return False
    free = [part for part in dict.fromkeys(node.inputs) if _is_free(partition, node, part, joined)]
    if len(free) == len(node.inputs):
        return True
    if _is_read_while_made(partition, node):
        return False
    total, gained = _bytes(partition, node.inputs), _bytes(partition, free)
    return total is not None and gained is not None and 0 < total <= 2 * gained


def _is_free(partition: Partition, node: Node, part: str, joined: set[str]) -> bool:
    """Whether ``part`` is a value of its own that a kernel other than the concatenation's writes anyway."""
    value = _whole(partition, part)
    maker = partition.producers.get(value)
    if maker is None or value in joined:
        return False
    if partition.kind(maker) is OpKind.VIEW:
        return maker.op == "Concat"
    return not _is_computed_while_read(partition, value, node)


def _whole(partition: Partition, value: str) -> str:
    """The value that ``value`` is another shape of. A slice that shares memory is an input as far as this goes: none
    of its own memory."""
    maker = partition.producers.get(value)
    while maker is not None and partition.kind(maker) is OpKind.VIEW and maker.op not in ("Concat", "Slice", "Split"):
        value = maker.inputs[0]
        maker = partition.producers.get(value)
    return value


def _is_cut(partition: Partition, node: Node, reads: int) -> bool:
    """Whether the operand is in memory anyway, its pieces begin at multiples of ``reads`` bytes, and some result need
    not be an array of the caller's."""
    offsets = pieces(partition.graph.call(node))
    if not partition.is_alone(node) or offsets is None or not all(is_aligned(offset, reads) for offset in offsets):
        return False
    inner = [o for o in node.outputs if o not in partition.graph.outputs]
    return bool(inner) and not _is_computed_while_read(partition, node.inputs[0], node)


def _is_computed_while_read(partition: Partition, value: str, reader: Node) -> bool:
    """Whether ``value`` is made by light nodes and only ``reader`` reads it, so that one kernel can be both."""
    maker = partition.producers.get(value)
    if maker is None or not is_light(partition, partition.group(maker)) or maker.op in EXPENSIVE:
        return False
    return value not in partition.graph.outputs and partition.users.get(value) == [reader]


def _is_read_while_made(partition: Partition, node: Node) -> bool:
    """Whether the result is read by one light node alone."""
    (value,) = node.outputs
    users = partition.users.get(value, [])
    return value not in partition.graph.outputs and len(users) == 1 and is_light(partition, partition.group(users[0]))


def _bytes(partition: Partition, values: Sequence[str]) -> int | None:
    """Bytes of all values; None when they are not known."""
    types = [partition.graph.types[v] for v in values]
    sizes = [product((*t.shape, t.dtype.bytes)) for t in types]
    return None if any(isinstance(s, Expr) for s in sizes) else sum(s for s in sizes if isinstance(s, int))
