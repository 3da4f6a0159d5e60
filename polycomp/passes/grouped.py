"""Grouped convolutions as what the schedules know best: dense convolutions, or a batched matrix product."""

from __future__ import annotations

import numpy as np

from polycomp.dtypes import DType
from polycomp.expr import Expr
from polycomp.graph import Graph, Node
from polycomp.options import Options
from polycomp.passes.layout import block_size
from polycomp.passes.rewrite import Array, Editor

_MOST_PARTS = 8
"""More groups than this are not computed one after the other."""


def split_groups(graph: Graph, options: Options) -> Graph:
    """Rewrite convolutions of several groups (depthwise ones aside)."""
    editor = Editor(graph)
    block = block_size(options)
    for name in [n.name for n in editor.nodes()]:
        node = editor.node(name)  # as it is by now: a change may be to what the next convolution reads
        weights = editor.constant(node.inputs[1]) if node is not None and node.op == "Conv" else None
        if node is None or weights is None or not _is_grouped(editor, node):
            continue
        if _fills_blocks(node, weights, block):
            _split(editor, node, weights)
        elif _is_pointwise(editor, node, weights):
            _multiply(editor, node, weights)
    return editor.finish()


def _is_grouped(editor: Editor, node: Node) -> bool:
    kind, group = editor.type(node.inputs[0]), node.attributes["group"]
    known = kind.dtype is DType.FLOAT32 and kind.rank == 4 and not any(isinstance(d, Expr) for d in kind.shape[1:])
    return known and 1 < group < (kind.shape[1] if isinstance(kind.shape[1], int) else 0)


def _fills_blocks(node: Node, weights: Array, block: int) -> bool:
    group = node.attributes["group"]
    return bool(group <= _MOST_PARTS and weights.shape[1] % block == 0 and weights.shape[0] // group % block == 0)


def _split(editor: Editor, node: Node, weights: Array) -> None:
    """One dense convolution per group on its slice of the channels, joined again."""
    group, (batch, _, *spatial) = node.attributes["group"], editor.shape(node.inputs[0])
    depth, rows = weights.shape[1], weights.shape[0] // group
    bias = editor.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    parts = []
    for g in range(group):
        cut = {"starts": (0, g * depth, 0, 0), "steps": (1,) * 4, "sizes": (batch, depth, *spatial)}
        inputs = [editor.emit("Slice", (node.inputs[0],), cut, node)]
        operands = [weights] if bias is None else [weights, bias]
        inputs += [editor.add_constant(c[g * rows : (g + 1) * rows], f"{node.name}.group") for c in operands]
        parts.append(editor.emit("Conv", inputs, {**node.attributes, "group": 1}, node))
    editor.replace(node, editor.emit("Concat", parts, {"axis": 1}, node))


def _is_pointwise(editor: Editor, node: Node, weights: Array) -> bool:
    one = {*weights.shape[2:], *node.attributes["strides"]} == {1}
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2])
    return one and not any(node.attributes["pads"]) and (not has_bias or node.inputs[2] in editor.constants)


def _multiply(editor: Editor, node: Node, weights: Array) -> None:
    """A 1x1 convolution is, for each group, its weights times the image as a matrix [channels, positions]."""
    group, (batch, _, height, width) = node.attributes["group"], editor.shape(node.inputs[0])
    rows, depth = weights.shape[0] // group, weights.shape[1]
    matrices = editor.add_constant(np.ascontiguousarray(weights.reshape(group, rows, depth)), f"{node.name}.matrices")
    columns = editor.dim(height * width)
    image = editor.emit("Reshape", (node.inputs[0],), {"shape": (batch, group, depth, columns)}, node)
    result = editor.emit("MatMul", (matrices, image), {}, node)
    bias = editor.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        shift = editor.add_constant(bias.reshape(group, rows, 1), f"{node.name}.bias")
        result = editor.emit("Add", (result, shift), {}, node)
    shape = editor.shape(node.outputs[0])
    editor.replace(node, editor.emit("Reshape", (result,), {"shape": shape}, node))
