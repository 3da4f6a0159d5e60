"""What passes rewrite graphs with: an editor, and rules applied until none fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.expr import Const, Expr, Ranges, simplify
from polycomp.graph import Call, Graph, Node, OpKind, TensorType
from polycomp.ops import operators
from polycomp.te import Dim

Array = np.ndarray[Any, Any]

_MAX_ROUNDS = 50


class Editor:
    """A graph being changed. Values keep their names; nodes may be in any order until :meth:`finish`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.operators = operators()
        self.types = dict(graph.types)
        self.constants: dict[str, Array] = dict(graph.constants)
        self.ranges: Ranges = {s.var: (s.minimum, s.maximum) for s in graph.symbols}
        self._nodes: dict[str, Node] = {}
        self._producers: dict[str, str] = {}
        self._users: dict[str, dict[str, None]] = {}
        for node in graph.nodes:
            self._insert(node)

    # Looking

    def nodes(self) -> list[Node]:
        """The nodes as they are now, in insertion order."""
        return list(self._nodes.values())

    def node(self, name: str) -> Node | None:
        """The node called ``name`` as it is now; None when it is gone."""
        return self._nodes.get(name)

    def kind(self, node: Node) -> OpKind:
        return self.operators[node.op].kind

    def call(self, node: Node) -> Call:
        """``node`` as its operator's rules see it, with the types as they are now."""
        types = tuple(self.types[i] if i else None for i in node.inputs)
        return Call(node.name, node.op, types, node.attributes, len(node.outputs))

    def producer(self, value: str, op: str = "") -> Node | None:
        """The node that makes ``value``; None for inputs and constants, or when its operator is not ``op``."""
        node = self._nodes.get(self._producers.get(value, ""))
        return node if node is not None and op in ("", node.op) else None

    def users(self, value: str) -> list[Node]:
        """The nodes that read ``value``, each once."""
        return [self._nodes[n] for n in self._users.get(value, {})]

    def is_output(self, value: str) -> bool:
        return value in self.graph.outputs

    def sole_user(self, value: str) -> Node | None:
        """The only node that reads ``value``; None when there are several or the value is an output."""
        users = self.users(value)
        return users[0] if len(users) == 1 and not self.is_output(value) else None

    def constant(self, value: str) -> Array | None:
        return self.constants.get(value)

    def scalar(self, value: str) -> float | None:
        """The number that the constant ``value`` of one element is."""
        array = self.constants.get(value)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def type(self, value: str) -> TensorType:
        return self.types[value]

    def shape(self, value: str) -> tuple[Dim, ...]:
        return self.types[value].shape

    def dim(self, dim: Dim) -> Dim:
        """``dim`` in normal form."""
        if not isinstance(dim, Expr):
            return dim
        simple = simplify(dim, self.ranges)
        return int(simple.value) if isinstance(simple, Const) else simple

    # Changing

    def add_constant(self, array: Array, hint: str) -> str:
        """A new constant value."""
        name = self._fresh_value(hint)
        self.constants[name] = array
        self.types[name] = TensorType(as_dtype(array.dtype), array.shape)
        return name

    def emit(
        self, op: str, inputs: Sequence[str], attributes: Mapping[str, Any], at: Node, outputs: Sequence[str] = ()
    ) -> str:
        """Add a node in place of or next to ``at``, whose sources it inherits; its (first) output's name."""
        name = self._fresh_node(at.name)
        kept = tuple(inputs)
        while kept and not kept[-1]:
            kept = kept[:-1]
        types = self.infer(op, kept, attributes, name)
        outs = tuple(outputs) or tuple(self._fresh_value(f"{name}.{op}") for _ in types)
        self.types.update(zip(outs, types, strict=True))
        self._insert(Node(name, op, kept, outs, dict(attributes), at.sources))
        return outs[0]

    def infer(self, op: str, inputs: Sequence[str], attributes: Mapping[str, Any], name: str) -> list[TensorType]:
        """The types that an operator's outputs would have; raises ShapeError or DTypeError when it does not fit."""
        types = tuple(self.types[i] if i else None for i in inputs)
        inferred = self.operators[op].infer(Call(name, op, types, attributes))
        return [TensorType(t.dtype, tuple(self.dim(d) for d in t.shape)) for t in inferred]

    def replace(self, node: Node, *values: str) -> None:
        """Remove ``node``; readers of its outputs read ``values`` instead."""
        self.remove(node)
        for old, new in zip(node.outputs, values, strict=True):
            if self.is_output(old):
                self._provide_output(old, new, node)
            else:
                self._redirect(old, new)
                self.types.pop(old, None)

    def remove(self, node: Node) -> None:
        """Take ``node`` out; its outputs must be unread or be given to other nodes next."""
        del self._nodes[node.name]
        for value in node.outputs:
            self._producers.pop(value, None)
        for value in dict.fromkeys(i for i in node.inputs if i):
            self._users[value].pop(node.name, None)

    def update(self, node: Node, **changes: Any) -> Node:
        """Replace ``node`` by one with some fields changed."""
        changed: Node = dataclasses.replace(node, **changes)
        self.remove(node)
        self._insert(changed)
        return changed

    def finish(self) -> Graph:
        """The changed graph: live nodes in topological order, live values only."""
        nodes = self._ordered()
        used = {v for n in nodes for v in (*n.inputs, *n.outputs)} | set(self.graph.inputs) | set(self.graph.outputs)
        return dataclasses.replace(
            self.graph,
            nodes=tuple(nodes),
            types={n: t for n, t in self.types.items() if n in used},
            constants={n: c for n, c in self.constants.items() if n in used},
        )

    # Inside

    def _insert(self, node: Node) -> None:
        self._nodes[node.name] = node
        self._producers.update(dict.fromkeys(node.outputs, node.name))
        for value in node.inputs:
            if value:
                self._users.setdefault(value, {})[node.name] = None

    def _redirect(self, old: str, new: str) -> None:
        for user in self.users(old):
            self.update(user, inputs=tuple(new if i == old else i for i in user.inputs))

    def _provide_output(self, old: str, new: str, at: Node) -> None:
        """The graph's output ``old`` keeps its name: the producer of ``new`` takes it over, or an Identity makes it."""
        maker = self.producer(new)
        if maker is None or self.is_output(new):
            self.types.setdefault(old, self.types[new])
            self.emit("Identity", (new,), {}, at, (old,))
            return
        self.update(maker, outputs=tuple(old if o == new else o for o in maker.outputs))
        self.types[old] = self.types.pop(new)
        self._redirect(new, old)

    def _fresh_node(self, hint: str) -> str:
        name, count = hint, 0
        while name in self._nodes:
            count += 1
            name = f"{hint}/{count}"
        return name

    def _fresh_value(self, hint: str) -> str:
        name, count = hint, 0
        while name in self.types or name in self._producers:
            count += 1
            name = f"{hint}/{count}"
        return name

    def _ordered(self) -> list[Node]:
        live = self._live()
        order: dict[str, Node] = {}
        for root in self._nodes:
            stack = [(root, False)] if root in live else []
            while stack:
                name, done = stack.pop()
                if name in order:
                    continue
                if done:
                    order[name] = self._nodes[name]
                    continue
                stack.append((name, True))
                makers = [self._producers[i] for i in self._nodes[name].inputs if i in self._producers]
                stack.extend((m, False) for m in reversed(makers))
        return list(order.values())

    def _live(self) -> set[str]:
        live: set[str] = set()
        stack = [self._producers[o] for o in self.graph.outputs if o in self._producers]
        while stack:
            name = stack.pop()
            if name not in live:
                live.add(name)
                stack.extend(self._producers[i] for i in self._nodes[name].inputs if i in self._producers)
        return live


Rule = Callable[[Editor, Node], bool]
"""Tries to rewrite at a node; True when it changed the graph."""


def apply_rules(graph: Graph, rules: Mapping[str, Sequence[Rule]], last_first: bool = False) -> Graph:
    """Apply the rules of each node's operator ("" for any operator) until none fits.

    Nodes are visited in order, or from the last to the first, so that of two patterns that overlap the one whose
    root comes later wins.
    """
    for _ in range(_MAX_ROUNDS):
        editor = Editor(graph)
        changed = False
        names = [n.name for n in editor.nodes()]
        for name in reversed(names) if last_first else names:
            changed |= _apply_at(editor, name, rules)
        graph = editor.finish()
        if not changed:
            break
    return graph


def _apply_at(editor: Editor, name: str, rules: Mapping[str, Sequence[Rule]]) -> bool:
    """Try every rule at the node called ``name`` as long as it is there."""
    changed = False
    node = editor.node(name)
    for rule in (*rules.get(node.op, ()), *rules.get("", ())) if node is not None else ():
        node = editor.node(name)
        if node is None:
            break
        changed |= rule(editor, node)
    return changed
