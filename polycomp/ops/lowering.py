"""Nodes of a graph as tensor expressions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from polycomp.errors import CompileError
from polycomp.expr import Const, Expr, Load, const, simplify, transform
from polycomp.graph.ir import Graph, Group, Node, TensorType
from polycomp.ops import operators
from polycomp.te import Axis, Tensor, placeholder


def lower_group(graph: Graph, group: Group) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The placeholders of ``group.inputs`` and the tensors of ``group.outputs``, in their order and with their names.

    One-element constants become literals: their placeholder is returned too, but nothing loads from it.
    """
    types = graph.types
    inputs = {name: placeholder(types[name].shape, types[name].dtype, name) for name in group.inputs}
    values = lower_nodes(graph, group.nodes, inputs)
    return tuple(inputs.values()), tuple(values[name] for name in group.outputs)


def lower_nodes(graph: Graph, nodes: Sequence[Node], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of all values that ``nodes`` (in topological order) compute, and of ``inputs``, by name.

    A tensor is named after the value it is; further tensors of a node (the maximum in a softmax) are named
    ``VALUE.STAGE``. Raises :class:`CompileError` when a node reads a value that is neither an input nor a constant of
    one element.
    """
    values = dict(inputs)
    literals = {name: t for name in _names_read(nodes) if (t := _literal(graph, name)) is not None}
    for node in nodes:
        operands = [_operand(name, values, literals, node) for name in node.inputs]
        call = dataclasses.replace(graph.call(node), node=node.outputs[0])
        results = operators()[node.op].lower(call, operands)
        values.update(_finish(node, results, operands))
    return values


def _names_read(nodes: Sequence[Node]) -> dict[str, None]:
    return dict.fromkeys(name for node in nodes for name in node.inputs if name)


def _literal(graph: Graph, name: str) -> Tensor | None:
    """A tensor that is a literal, for a constant of one element."""
    array = graph.constants.get(name)
    return literal_tensor(name, graph.types[name], array) if array is not None and array.size == 1 else None


def literal_tensor(name: str, kind: TensorType, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
    """The tensor of type ``kind`` whose only element is that of ``array``, as a literal."""
    axes = tuple(Axis(f"i{d}", extent=n) for d, n in enumerate(kind.shape))
    return Tensor(name, kind.shape, kind.dtype, axes, const(array.item(), kind.dtype))


def _operand(name: str, values: Mapping[str, Tensor], literals: Mapping[str, Tensor], node: Node) -> Tensor | None:
    if not name:
        return None
    found = literals.get(name) or values.get(name)
    if found is None:
        raise CompileError(f"{node.op} {node.name!r} reads {name!r}, which is not an input of its group")
    return found


def _finish(node: Node, results: Sequence[Tensor], operands: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """``results`` by value name and renamed to it; new tensors get the node's source, loads of literals become them."""
    names = dict(zip(results, node.outputs, strict=True))
    source = ", ".join(node.sources) or node.name
    done: dict[Tensor, Tensor] = {}
    for tensor in _new_tensors(results, operands):
        body = None if tensor.body is None else _replace_loads(tensor.body, done)
        done[tensor] = dataclasses.replace(tensor, name=names.get(tensor, tensor.name), source=source, body=body)
    return {name: done[tensor] for tensor, name in names.items()}


def _new_tensors(results: Sequence[Tensor], operands: Sequence[Tensor | None]) -> list[Tensor]:
    """The tensors that the node itself defines, producers first."""
    order: dict[Tensor, None] = {}

    def visit(tensor: Tensor) -> None:
        if tensor in order or tensor in operands:
            return
        for read in tensor.inputs():
            visit(read)
        order[tensor] = None

    for result in results:
        visit(result)
    return list(order)


def _replace_loads(body: Expr, done: Mapping[Tensor, Tensor]) -> Expr:
    """``body`` reading the finished tensors, and literals instead of tensors that are one."""
    literal_index = False

    def rewrite(e: Expr) -> Expr | None:
        nonlocal literal_index
        if not isinstance(e, Load):
            return None
        value = e.source.body
        if isinstance(value, Const):
            literal_index |= not value.dtype.is_float
            return value
        return Load(done[e.source], e.indices) if e.source in done else None

    result = transform(body, rewrite)
    return simplify(result) if literal_index else result
