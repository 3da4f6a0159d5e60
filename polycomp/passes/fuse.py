"""Fusion: which nodes become one kernel.

A group has at most one anchor: a contraction with its element-wise epilogue, or a reduction with element-wise
neighbours. Without an anchor it is a chain of element-wise and injective nodes. Views, and what can share memory as if
it were one (``sharing``), are groups of their own, which need no kernel. Only attention has three anchors: a
product, the softmax of its rows, and the product of that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node, OpKind
from polycomp.graph.verify import same_dim
from polycomp.options import Options
from polycomp.passes.partition import Partition
from polycomp.passes.sharing import EXPENSIVE, is_light, share_memory
from polycomp.passes.sites import Sites
from polycomp.te import Dim

_HALVES = (DType.FLOAT16, DType.BFLOAT16)

_PATIENCE = 10
"""Nodes that an epilogue may grow by while more than one value leaves it."""

_MOST_NODES, _MOST_INPUTS = 32, 16
_ANCHORS = (OpKind.CONTRACTION, OpKind.REDUCTION)

_READ_ONCE = frozenset(
    ["Transpose", "Slice", "Concat", "Pad", "ToBlocked", "FromBlocked", "DepthToSpace", "SpaceToDepth", "Trilu"]
)
"""Injective operators that read no element of their input twice (but a few at the rims of a Pad)."""

_READ_THROUGH = frozenset(["Transpose", "Slice"])
"""Injective operators that only change the strides of what a contraction reads."""

_ROWS = frozenset(
    [
        "Softmax",
        "LogSoftmax",
        "LayerNormalization",
        "RMSNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalAveragePoolBlocked",
        "GlobalMaxPoolBlocked",
    ]
)


def fuse(graph: Graph, options: Options) -> Graph:
    """Fill ``Graph.groups``."""
    partition, sites = Partition(graph), Sites(options)
    for node in graph.nodes:
        if partition.kind(node) is OpKind.CONTRACTION:
            _grow_epilogue(partition, node)
    for node in graph.nodes:
        if partition.kind(node) is OpKind.REDUCTION:
            _grow_epilogue(partition, node)
            _grow_prologue(partition, node)
    for node in graph.nodes:
        if partition.kind(node) is OpKind.CONTRACTION and node.op in ("MatMul", "MatMulPacked"):
            _read_through(partition, node)
    for node in graph.nodes:
        if node.op == "Softmax":
            _merge_attention(partition, node, sites, _HALVES if options.target.is_gpu else ())
    share_memory(partition, options.target)
    _merge_light(partition)
    groups = [partition.finish(g, _anchor(partition, g)) for g in partition.ordered()]
    nodes = tuple(n for g in groups for n in g.nodes)
    return sites.note(dataclasses.replace(graph, nodes=nodes, groups=tuple(groups)))


def _anchor(partition: Partition, group: int) -> Node:
    nodes = partition.members(group)
    return next((n for n in nodes if partition.kind(n) in _ANCHORS), nodes[-1])


def _shape(partition: Partition, value: str) -> tuple[Dim, ...]:
    return partition.graph.types[value].shape


def _same(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return len(a) == len(b) and all(same_dim(x, y) for x, y in zip(a, b, strict=True))


# Epilogues and prologues of anchors


def _grow_epilogue(partition: Partition, anchor: Node) -> None:
    """Take element-wise nodes of the anchor's shape that read its result, as far as one value leaves the group.

    Growing through a value with several readers is tried for as long as they may meet again (x * sigmoid(x)).
    """
    shape = _shape(partition, anchor.outputs[0])
    grown: list[Node] = []
    kept = 0
    while len(grown) - kept <= _PATIENCE:
        found = _next_in_epilogue(partition, partition.group(anchor), shape)
        if found is None:
            break
        partition.merge(partition.group(anchor), partition.group(found))
        grown.append(found)
        if len(partition.outputs(partition.group(anchor))) == 1:
            kept = len(grown)
    for node in grown[kept:]:
        partition.part(node)


def _next_in_epilogue(partition: Partition, group: int, shape: Sequence[Dim]) -> Node | None:
    readers = {u.name: u for n in partition.members(group) for o in n.outputs for u in partition.users.get(o, ()) if o}
    for node in sorted(readers.values(), key=lambda n: partition.position[n.name]):
        if partition.group(node) == group or not _is_single(partition, node, OpKind.ELEMENTWISE):
            continue
        if _same(_shape(partition, node.outputs[0]), shape) and partition.can_merge(group, partition.group(node)):
            return node
    return None


def _is_single(partition: Partition, node: Node, *kinds: OpKind) -> bool:
    """Whether a node of one output is not in a group with others yet."""
    return partition.kind(node) in kinds and partition.is_alone(node) and len(node.outputs) == 1


def _grow_prologue(partition: Partition, anchor: Node) -> None:
    """Take element-wise nodes that only a row-wise reduction reads, in its input's shape."""
    if anchor.op not in _ROWS and not anchor.op.startswith(("Reduce", "Arg")):
        return
    shape = _shape(partition, anchor.inputs[0])
    pending = [anchor.inputs[0]]
    while pending:
        node = partition.producers.get(pending.pop())
        if node is None or not _is_single(partition, node, OpKind.ELEMENTWISE):
            continue
        group = partition.group(anchor)
        readers = partition.users[node.outputs[0]]
        inner = all(partition.group(u) == group for u in readers) and node.outputs[0] not in partition.graph.outputs
        if inner and _same(_shape(partition, node.outputs[0]), shape):
            partition.merge(group, partition.group(node))
            pending.extend(i for i in node.inputs if i)


def _read_through(partition: Partition, anchor: Node) -> None:
    """Let a matrix product read its operands through the transposes and slices that only it uses."""
    for value in anchor.inputs[:2]:
        node = partition.producers.get(value)
        while node is not None and node.op in _READ_THROUGH and partition.is_alone(node):
            group = partition.group(anchor)
            readers = partition.users[node.outputs[0]]
            if node.outputs[0] in partition.graph.outputs or any(partition.group(u) != group for u in readers):
                break
            if not partition.can_merge(group, partition.group(node)):
                break
            partition.merge(group, partition.group(node))
            node = partition.producers.get(node.inputs[0])


# Attention: three anchors that become one kernel


def _merge_attention(partition: Partition, softmax: Node, sites: Sites, narrow: Sequence[DType]) -> None:
    """Merge a softmax over rows with the product that it alone reads and the product that alone reads it, so that the
    matrix of scores between them is never in memory; unless tuning found that three kernels take less time.

    No path leaves and comes back: all that leaves the first two groups is read by the next one alone.
    """
    group = partition.group(softmax)
    first = next((p for v in partition.inputs(group) if (p := _scores(partition, softmax, v)) is not None), None)
    last = _product_of_weights(partition, softmax)
    if first is None or last is None or not all(_is_batched(partition, n, narrow) for n in (first, last)):
        return
    operands = (partition.graph.types[i] for i in (*first.inputs, last.inputs[1]))
    problem = f"attention of {' '.join(map(str, operands))}"
    if not sites.decide(problem, "one kernel", True, (True, False), softmax):
        return
    for product in (first, last):
        partition.merge(group, partition.group(product))
    results = partition.outputs(group)
    users = list(partition.users.get(results[0], ())) if len(results) == 1 else []
    if len(users) == 1 and _moves_rows(partition, users[0]) and results[0] not in partition.graph.outputs:
        partition.merge(group, partition.group(users[0]))


def _scores(partition: Partition, softmax: Node, value: str) -> Node | None:
    """The product whose group makes ``value``, the scores that only the softmax's group reads; else None.

    A group of several anchors, an attention whose results are the scores of another one, is no such product.
    """
    maker = partition.producers.get(value)
    if maker is None or not _same(_shape(partition, value), _shape(partition, softmax.inputs[0])):
        return None
    group = partition.group(maker)
    alone = partition.outputs(group) == [value] and _only_read_by(partition, value, partition.group(softmax))
    anchors = [n for n in partition.members(group) if partition.kind(n) in _ANCHORS]
    return anchors[0] if alone and [a.op for a in anchors] == ["MatMul"] else None


def _product_of_weights(partition: Partition, softmax: Node) -> Node | None:
    """The product that alone reads the weights, a softmax over rows and what follows at each of its points, as its
    left operand; else None."""
    leaving = partition.outputs(partition.group(softmax))
    if len(leaving) != 1:
        return None
    (weights,) = leaving
    users = list(partition.users.get(weights, ()))
    rows = softmax.attributes.get("axis", -1) in (-1, len(_shape(partition, weights)) - 1)
    alone = rows and len(users) == 1
    fits = alone and users[0].op == "MatMul" and users[0].inputs[0] == weights != users[0].inputs[1]
    return users[0] if fits and weights not in partition.graph.outputs else None


def _is_batched(partition: Partition, product: Node, narrow: Sequence[DType]) -> bool:
    """Whether it multiplies matrices of float32, float64 or a ``narrow`` type by each other, one pair per batch."""
    left, right = (_shape(partition, i) for i in product.inputs)
    dtype = partition.graph.types[product.inputs[0]].dtype
    matrices = len(left) == len(right) >= 2 and _same(left[:-2], right[:-2])
    return matrices and dtype in (DType.FLOAT32, DType.FLOAT64, *narrow) and 1 not in (*left[-2:], right[-1])


def _moves_rows(partition: Partition, node: Node) -> bool:
    """Whether it is a transposition that leaves rows whole."""
    last = len(_shape(partition, node.outputs[0])) - 1
    return node.op == "Transpose" and partition.is_alone(node) and node.attributes["perm"][-1] == last


# Groups without an anchor


def _merge_light(partition: Partition) -> None:
    """Merge neighbours among element-wise and injective nodes, in order, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for node in partition.graph.nodes:
            for value in node.inputs:
                maker = partition.producers.get(value)
                if maker is not None and _try_merge(partition, maker, node, value):
                    changed = True


def _try_merge(partition: Partition, maker: Node, reader: Node, value: str) -> bool:
    a, b = partition.group(maker), partition.group(reader)
    if a == b or not is_light(partition, a) or not is_light(partition, b):
        return False
    nodes = len(partition.members(a)) + len(partition.members(b))
    if nodes > _MOST_NODES or len({*partition.inputs(a), *partition.inputs(b)}) > _MOST_INPUTS:
        return False
    fits = _pointwise(partition, a, b, reader, value) or _inlined(partition, a, b, reader)
    if not fits or not partition.can_merge(a, b):
        return False
    partition.merge(b, a)
    return True


def _pointwise(partition: Partition, a: int, b: int, reader: Node, value: str) -> bool:
    """All that leaves either group has one shape, and the reader is element-wise: one loop makes everything."""
    shape = _shape(partition, value)
    leaving = [*partition.outputs(a), *partition.outputs(b)]
    all_same = all(_same(_shape(partition, o), shape) for o in leaving)
    return partition.kind(reader) is OpKind.ELEMENTWISE and all_same and len(leaving) <= 4


def _inlined(partition: Partition, a: int, b: int, reader: Node) -> bool:
    """Everything that ``a`` makes is read by ``b`` alone and is cheap enough to be computed where it is read."""
    if any(not _only_read_by(partition, o, b) for o in partition.outputs(a)):
        return False
    makers = partition.members(a)
    if all(partition.kind(n) is OpKind.INJECTIVE and n.op not in EXPENSIVE for n in makers):
        return True
    if any(n.op in EXPENSIVE for n in makers):
        return reader.op in _READ_ONCE - {"Concat"}
    return reader.op in _READ_ONCE or partition.kind(reader) is OpKind.ELEMENTWISE


def _only_read_by(partition: Partition, value: str, group: int) -> bool:
    readers = partition.users.get(value, ())
    return value not in partition.graph.outputs and all(partition.group(u) == group for u in readers)
