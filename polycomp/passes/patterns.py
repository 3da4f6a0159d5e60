"""Patterns of nodes, written as data.

A pattern is a tree: :class:`Op` for an operator, :class:`Any` for a value, :class:`Number` for a constant of one
element, :class:`Known` for any constant. The same name stands for the same value wherever it occurs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.graph import Node
from polycomp.passes.rewrite import Editor

_COMMUTATIVE = frozenset(["Add", "Mul", "Max", "Min"])


@dataclasses.dataclass(frozen=True)
class Any:
    """Any value, bound to ``name``."""

    name: str


@dataclasses.dataclass(frozen=True)
class Number:
    """A constant whose elements all are ``value`` (within 1e-3 of it, relatively: exporters round), of one element
    when ``value`` is None; bound to ``name`` when that is given."""

    value: float | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Known:
    """Any constant, bound to ``name``."""

    name: str


@dataclasses.dataclass(frozen=True)
class Op:
    """A node of operator ``op``; its value is bound to ``name`` when that is given."""

    op: str
    inputs: tuple[Pattern, ...]
    name: str = ""


Pattern = Any | Number | Known | Op


def op(name: str, *inputs: Pattern | float, bind: str = "") -> Op:
    """An :class:`Op`; plain numbers stand for :class:`Number`."""
    return Op(name, tuple(Number(i) if isinstance(i, int | float) else i for i in inputs), bind)


@dataclasses.dataclass(frozen=True)
class Match:
    """``values`` by name, and the matched nodes, the root first."""

    values: Mapping[str, str]
    nodes: tuple[Node, ...]

    def node_of(self, name: str) -> Node:
        """The matched node that makes the value bound to ``name``."""
        return next(n for n in self.nodes if self.values[name] in n.outputs)


def match(editor: Editor, node: Node, pattern: Op) -> Match | None:
    """Where ``pattern`` fits with ``node`` at its root and nothing outside reads the values inside; else None."""
    for found in _match_node(editor, node, pattern, Match(MappingProxyType({}), ())):
        if _is_closed(editor, found):
            return found
    return None


def _is_closed(editor: Editor, found: Match) -> bool:
    names = {n.name for n in found.nodes}
    for inner in found.nodes[1:]:
        for value in inner.outputs:
            if editor.is_output(value) or any(u.name not in names for u in editor.users(value)):
                return False
    return True


def _match_node(editor: Editor, node: Node, pattern: Op, so_far: Match) -> Iterator[Match]:
    if node.op != pattern.op or len(node.inputs) != len(pattern.inputs):
        return
    bound = _bind(so_far, pattern.name, node.outputs[0])
    if bound is None:
        return
    if node.name not in {n.name for n in bound.nodes}:
        bound = Match(bound.values, (*bound.nodes, node))
    orders: list[Sequence[str]] = [node.inputs]
    if pattern.op in _COMMUTATIVE and node.inputs[0] != node.inputs[1]:
        orders.append(node.inputs[::-1])
    for inputs in orders:
        yield from _match_all(editor, inputs, pattern.inputs, bound)


def _match_all(editor: Editor, values: Sequence[str], patterns: Sequence[Pattern], so_far: Match) -> Iterator[Match]:
    if not patterns:
        yield so_far
        return
    for found in _match_value(editor, values[0], patterns[0], so_far):
        yield from _match_all(editor, values[1:], patterns[1:], found)


def _match_value(editor: Editor, value: str, pattern: Pattern, so_far: Match) -> Iterator[Match]:
    if isinstance(pattern, Op):
        node = editor.producer(value)
        if node is not None:
            yield from _match_node(editor, node, pattern, so_far)
        return
    if isinstance(pattern, Number) and not _is_number(editor, value, pattern.value):
        return
    if isinstance(pattern, Known) and value not in editor.constants:
        return
    bound = _bind(so_far, pattern.name, value)
    if bound is not None:
        yield bound


def _is_number(editor: Editor, value: str, wanted: float | None) -> bool:
    found = editor.constant(value)
    if found is None or not found.size or (wanted is None and found.size != 1):
        return False
    if wanted is None:
        return True
    first = float(found.reshape(-1)[0])
    return math.isclose(first, wanted, rel_tol=1e-3) and bool(np.all(found == found.reshape(-1)[0]))


def _bind(so_far: Match, name: str, value: str) -> Match | None:
    if not name:
        return so_far
    known = so_far.values.get(name)
    if known is not None:
        return so_far if known == value else None
    return Match(MappingProxyType({**so_far.values, name: value}), so_far.nodes)
