"""The names that a user gives for what stays in float32, as those of a model's nodes."""

from __future__ import annotations

import dataclasses
import difflib

from polycomp.errors import InputError
from polycomp.graph import Graph
from polycomp.ops import operators
from polycomp.options import Options


def with_kept_nodes(graph: Graph, options: Options) -> Options:
    """``options`` in which operators to keep in float32 stand for the nodes of ``graph``, as imported, that apply them:
    passes replace operators, but keep the names of a model's nodes.

    Raises :class:`InputError` for a name that is neither an operator's nor a node's.
    """
    kept: dict[str, None] = {}
    named = {name for node in graph.nodes for name in (node.name, *node.sources)}
    for name in options.keep_float32:
        kept[name] = None
        kept.update(dict.fromkeys(s for node in graph.nodes if node.op == name for s in (node.name, *node.sources)))
        if name not in named and name not in operators():
            raise InputError(_unknown(name, sorted({*named, *(node.op for node in graph.nodes)})))
    return dataclasses.replace(options, keep_float32=tuple(kept))


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]!r}?" if near else "; 'polycomp inspect' shows both"
    return f"{name!r}, which is to stay in float32, is neither an operator nor a node of the model{meant}"
