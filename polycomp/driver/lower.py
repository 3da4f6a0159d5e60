"""From a graph's groups to the kernels that compute them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from polycomp import te
from polycomp.driver.cache import key_of
from polycomp.driver.canonical import CanonicalKernel, canonicalize
from polycomp.driver.work import flops, moved_bytes
from polycomp.errors import CompileError, PolycompError
from polycomp.expr import Interval, Var
from polycomp.graph.ir import Graph, Group, OpKind, TensorType
from polycomp.ops import operators
from polycomp.ops.lowering import lower_group
from polycomp.te import Dim, Tensor, topological_order

_STEM_OPERATORS = 3  # how many of a group's operators name its kernel


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a kernel: ``inputs`` and ``outputs`` are names of the graph's values, in the order of its arguments.

    ``symbol`` names the kernel; equal symbols are the same kernel. ``flops`` and ``bytes`` are those of this call.
    """

    symbol: str
    kernel: CanonicalKernel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    flops: Dim
    bytes: Dim


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A graph as kernel calls in order. ``aliases`` maps each value that needs no memory of its own (a reshape) to the
    value whose memory it shares."""

    graph: Graph
    calls: tuple[Call, ...]
    aliases: Mapping[str, str]


def symbol_ranges(graph: Graph) -> dict[Var, Interval]:
    """Inclusive bounds of the sizes that are bound at run time."""
    return {symbol.var: (symbol.minimum, symbol.maximum) for symbol in graph.symbols}


def lower_graph(graph: Graph) -> Lowered:
    """Lower every group of a fused graph; a group of views becomes an alias, or a copy where it must."""
    lowering = _Lowering(graph)
    for group in graph.groups:
        lowering.group(group)
    for position, output in enumerate(graph.outputs):
        lowering.output(position, output)
    return Lowered(dataclasses.replace(graph, outputs=tuple(lowering.outputs)), tuple(lowering.calls), lowering.aliases)


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ranges = symbol_ranges(graph)
        self.calls: list[Call] = []
        self.aliases: dict[str, str] = {}
        self.outputs: list[str] = []

    def group(self, group: Group) -> None:
        if all(operators()[node.op].kind is OpKind.VIEW for node in group.nodes):
            for node in group.nodes:
                self.aliases[node.outputs[0]] = self.aliases.get(node.inputs[0], node.inputs[0])
            return
        inputs, outputs = _lower_or_explain(self.graph, group)
        sources = tuple(dict.fromkeys(s for node in group.nodes for s in (node.sources or (node.name,))))
        self._call(_stem(group), inputs, outputs, (group.inputs, group.outputs), sources)

    def output(self, position: int, name: str) -> None:
        """Let each of the graph's outputs be written by a kernel of its own memory; copy what is not."""
        root = self.aliases.get(name, name)
        given = root in self.graph.inputs or root in self.graph.constants
        taken = any(self.aliases.get(other, other) == root for other in self.outputs)
        if not given and not taken:
            self.outputs.append(name)
            return
        copy = f"{name}:output{position}"
        kind = self.graph.types[name]
        source = te.placeholder(kind.shape, kind.dtype, "source")
        result = te.compute(kind.shape, lambda *i: source[i], "copy")
        self._call("copy", (source,), (result,), ((name,), (copy,)), ())
        self.outputs.append(copy)

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
        work = (flops(outputs), moved_bytes(tensors, outputs))
        self.calls.append(Call(symbol, kernel, tuple(read), values[1], sources, *work))


def value_type(lowered: Lowered, name: str) -> TensorType:
    """The type of a value of the lowered graph, copies made for outputs included."""
    return lowered.graph.types[name if name in lowered.graph.types else name.rsplit(":", 1)[0]]


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
