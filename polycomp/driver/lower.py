"""From a graph's groups to the kernels that compute them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from polycomp import te
from polycomp.driver.cache import key_of
from polycomp.driver.canonical import CanonicalKernel, canonicalize
from polycomp.driver.places import Place, Places
from polycomp.driver.rounding import round_at_borders
from polycomp.driver.work import chosen_from, flops, moved_bytes
from polycomp.errors import CompileError, PolycompError
from polycomp.expr import Interval, Var
from polycomp.graph.ir import Graph, Group, Node, OpKind, TensorType
from polycomp.ops import operators
from polycomp.ops.lowering import lower_group
from polycomp.ops.pieces import pieces
from polycomp.te import Dim, Tensor, topological_order

_STEM_OPERATORS = 3  # how many of a group's operators name its kernel


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a kernel: ``inputs`` and ``outputs`` are names of the graph's values, in the order of its arguments.

    ``symbol`` names the kernel; equal symbols are the same kernel. ``flops`` and ``bytes`` are those of this call;
    ``chosen_from`` are those inputs of which it takes elements at indices that are data.
    """

    symbol: str
    kernel: CanonicalKernel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    flops: Dim
    bytes: Dim
    chosen_from: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A graph as kernel calls in order. ``places`` tells which values share the memory of others."""

    graph: Graph
    calls: tuple[Call, ...]
    places: Places


def symbol_ranges(graph: Graph) -> dict[Var, Interval]:
    """Inclusive bounds of the sizes that are bound at run time."""
    return {symbol.var: (symbol.minimum, symbol.maximum) for symbol in graph.symbols}


def lower_graph(graph: Graph, mixed: bool = False) -> Lowered:
    """Lower every group of a fused graph; one that shares memory becomes a place in it, and copies where it must.

    In ``mixed`` precision, numbers are rounded to 16 bits only where they are written.
    """
    lowering = _Lowering(graph, mixed)
    for group in graph.groups:
        lowering.group(group)
    for position, output in enumerate(graph.outputs):
        lowering.output(position, output)
    return Lowered(dataclasses.replace(graph, outputs=tuple(lowering.outputs)), tuple(lowering.calls), lowering.places)


class _Lowering:
    def __init__(self, graph: Graph, mixed: bool) -> None:
        self.graph, self.mixed = graph, mixed
        self.ranges = symbol_ranges(graph)
        self.calls: list[Call] = []
        self.at: dict[str, Place] = {}
        self.joined: dict[str, tuple[str, ...]] = {}
        self.places = Places(self.at, self.joined)
        self.outputs: list[str] = []

    def group(self, group: Group) -> None:
        if group.shares:
            self._share(group.anchor)
            return
        inputs, outputs = _lower_or_explain(self.graph, group)
        if self.mixed:
            outputs = round_at_borders(outputs)
        sources = tuple(dict.fromkeys(s for node in group.nodes for s in (node.sources or (node.name,))))
        self._call(_stem(group), inputs, outputs, (group.inputs, group.outputs), sources)

    def _share(self, node: Node) -> None:
        """Give a node's outputs their places in its input, or its inputs theirs in the output."""
        offsets = pieces(self.graph.call(node))
        if offsets is None:
            self.at[node.outputs[0]] = Place(node.inputs[0])
        elif node.op == "Concat":
            self._join(node, offsets)
        else:
            places = (Place(node.inputs[0], offset, whole=False) for offset in offsets)
            self.at.update(zip(node.outputs, places, strict=True))

    def _join(self, node: Node, offsets: Sequence[Dim]) -> None:
        """Let a concatenation's operands be written where they belong in its result. Copies are made of those that
        are there already: what the caller or the model gives, pieces of other values, and a second occurrence."""
        (result,) = node.outputs
        parts: list[str] = []
        for name, offset in zip(node.inputs, offsets, strict=True):
            root = self.places.whole(name)
            if root is None or self._is_given(root):
                root = self._copy(name, f"{name}:part{len(self.calls)}", node.sources)
            self.at[root] = Place(result, offset, whole=False)
            parts.append(root)
        self.joined[result] = tuple(parts)

    def _is_given(self, root: str) -> bool:
        return root in self.graph.inputs or root in self.graph.constants

    def output(self, position: int, name: str) -> None:
        """Let each of the graph's outputs be written by kernels of its own memory; copy what is not."""
        root = self.places.whole(name)
        taken = any(self.places.whole(other) == root for other in self.outputs)
        if root is None or self._is_given(root) or taken:
            name = self._copy(name, f"{name}:output{position}", ())
        self.outputs.append(name)

    def _copy(self, name: str, copy: str, sources: tuple[str, ...]) -> str:
        kind = value_type(self.graph, name)
        source = te.placeholder(kind.shape, kind.dtype, "source")
        result = te.compute(kind.shape, lambda *i: source[i], "copy")
        self._call("copy", (source,), (result,), ((name,), (copy,)), sources)
        return copy

    def _call(
        self,
        stem: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        values: tuple[tuple[str, ...], tuple[str, ...]],
        sources: tuple[str, ...],
    ) -> None:
        used = set(topological_order(outputs))  # a constant of one element has become part of the expressions
        read = {name: tensor for name, tensor in zip(values[0], inputs, strict=True) if tensor in used}
        tensors = tuple(read.values())
        kernel = canonicalize(tensors, outputs, self.ranges)
        symbol = f"{stem}_{key_of(kernel.text)[:16]}"
        work = (flops(outputs), moved_bytes(tensors, outputs), chosen_from(tuple(read), tensors, outputs))
        self.calls.append(Call(symbol, kernel, tuple(read), values[1], sources, *work))


def value_type(graph: Graph, name: str) -> TensorType:
    """The type of a value of the lowered graph, copies included."""
    return graph.types[name if name in graph.types else name.rsplit(":", 1)[0]]


def _lower_or_explain(graph: Graph, group: Group) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    try:
        return lower_group(graph, group)
    except PolycompError:
        raise
    except Exception as error:
        nodes = ", ".join(f"{n.op} {n.name!r}" for n in group.nodes)
        raise CompileError(f"{nodes} cannot be lowered: {type(error).__name__}: {error}") from error


def _stem(group: Group) -> str:
    """What a kernel computes, in a few words: its anchor, then what is fused to it."""
    others = [n.op for n in group.nodes if n is not group.anchor and operators()[n.op].kind is not OpKind.VIEW]
    words = list(dict.fromkeys([group.anchor.op, *others]))[:_STEM_OPERATORS]
    return "_".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower() for word in words)
