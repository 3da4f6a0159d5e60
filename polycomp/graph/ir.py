"""Graph IR: nodes apply operators to named tensors.

Operators here are *canonical*: whatever decides a shape (axes, pads, a Reshape's target, a Slice's starts and steps)
is an attribute, never a tensor input; importers translate. A dimension is an int or an int64 expression over the
graph's symbols. Graphs are changed by building a new one (passes are ``name(graph, options) -> graph``).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.decisions import Decision
from polycomp.dtypes import DType
from polycomp.expr import Expr, Var
from polycomp.te import Dim, Tensor


@dataclasses.dataclass(frozen=True)
class TensorType:
    """Element type and shape of a value; the memory layout is always row-major over ``shape``."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a known int."""
        return not any(isinstance(d, Expr) for d in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A size that is bound at run time, with inclusive bounds (``maximum`` None: unbounded)."""

    var: Var
    minimum: int = 1
    maximum: int | None = None


@dataclasses.dataclass(frozen=True)
class Condition:
    """What sizes must satisfy for ``node`` to make sense, where that is only known at run time.

    ``holds`` is a comparison of integer expressions over symbols; ``problem`` says what is wrong when it fails.
    """

    node: str
    holds: Expr
    problem: str


class OpKind(enum.Enum):
    """How an operator's outputs depend on its inputs, which is what fusion needs to know."""

    ELEMENTWISE = "elementwise"  # out[i] from in[i], with numpy broadcasting
    INJECTIVE = "injective"  # out[i] from one element in[f(i)] per input: transpose, slice, concat, pad, gather
    REDUCTION = "reduction"  # reductions, pooling, softmax, normalisation: every input element may be read often
    CONTRACTION = "contraction"  # multiply-accumulate: matmul, convolution
    VIEW = "view"  # same elements in the same order: reshape and its family; needs no code when memory is shared


@dataclasses.dataclass(frozen=True)
class Call:
    """What an operator's rules see of one application of it.

    ``inputs`` has None for an absent optional input. ``node`` names the node in errors.
    """

    node: str
    op: str
    inputs: tuple[TensorType | None, ...]
    attributes: Mapping[str, Any]
    n_outputs: int = 1

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def input(self, position: int) -> TensorType:
        """The type of a required input; raises IndexError or TypeError only on a malformed graph."""
        found = self.inputs[position]
        if found is None:
            raise TypeError(f"input {position} of {self.op} {self.node!r} is required")
        return found

    def has(self, position: int) -> bool:
        """Whether the optional input at ``position`` is given."""
        return position < len(self.inputs) and self.inputs[position] is not None


Infer = Callable[[Call], tuple[TensorType, ...]]
"""Output types of a call. Raises ShapeError or DTypeError naming the node when the inputs do not fit."""

Lower = Callable[[Call, Sequence[Tensor | None]], tuple[Tensor, ...]]
"""Tensor expressions of a call's outputs, given one te.Tensor per input (None where absent)."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator of the library: its shape rule and its definition as tensor expressions."""

    name: str
    kind: OpKind
    infer: Infer
    lower: Lower

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("operators hold functions and are not pickled; pickle tensor expressions instead")


@dataclasses.dataclass(frozen=True)
class Node:
    """One application of an operator. ``inputs`` has "" for an absent optional input.

    ``sources`` are the names of the model's nodes (or Python lines) that this node came from.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sources: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """Nodes that become one kernel. ``anchor`` is the node whose loops the schedule is built around.

    A group that ``shares`` is no kernel, but one node: its outputs share memory with its inputs.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    anchor: Node
    shares: bool = False


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a pass could go several ways, and the ``decision`` that it made.

    ``problem`` describes what there is to compute; it is equal where the same is to be decided, in all models.
    ``sources`` are the model's nodes that the decision is about.
    """

    problem: str
    decision: Decision
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A program on named tensors, in static single assignment.

    ``nodes`` are in topological order; ``types`` has every value's type; ``constants`` the value of those that are
    known (weights included). ``groups`` is empty until the fusion pass has run, then covers all nodes in order.
    ``conditions`` are checked before every run. ``published`` has the names of outputs that users know by another name
    than the graph does: an output that is called like an input. ``sites`` tell what passes have decided.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, np.ndarray[Any, Any]] = dataclasses.field(default_factory=dict)
    symbols: tuple[Symbol, ...] = ()
    groups: tuple[Group, ...] = ()
    conditions: tuple[Condition, ...] = ()
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sites: tuple[Site, ...] = ()

    def producers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {output: node for node in self.nodes for output in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value, in order; a node that reads it twice is listed once."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    users.setdefault(name, []).append(node)
        return users

    def call(self, node: Node) -> Call:
        """``node`` as its operator's rules see it."""
        inputs = tuple(self.types[i] if i else None for i in node.inputs)
        return Call(node.name, node.op, inputs, node.attributes, len(node.outputs))
