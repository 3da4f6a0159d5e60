"""Constant folding: nodes whose inputs are all known are computed while compiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from polycomp.expr import Expr
from polycomp.graph import Graph, Node, OpKind
from polycomp.ops.integer import WORD
from polycomp.ops.winograd import transform_weights
from polycomp.options import Options
from polycomp.passes.rewrite import Array, Editor
from polycomp.te import Tensor, placeholder
from polycomp.te.evaluate import evaluate

_SMALL = 1 << 20
"""A result of at most this many bytes is always kept; larger ones must not outgrow what they are made from."""


def fold_constants(graph: Graph, options: Options) -> Graph:
    """Compute nodes of constants. A large result of small constants (an Expand) is left to the run, unless a matrix
    product or a convolution reads it: weights are always known."""
    editor = Editor(graph)
    for name in [n.name for n in editor.nodes()]:
        node = editor.node(name)
        if node is not None and _is_foldable(editor, node):
            values = compute(editor, node)
            results = [editor.add_constant(v, f"{o}.folded") for o, v in zip(node.outputs, values, strict=True)]
            editor.replace(node, *results)
    return editor.finish()


def _is_foldable(editor: Editor, node: Node) -> bool:
    if any(i and i not in editor.constants for i in node.inputs) or any(map(editor.is_output, node.outputs)):
        return False
    if not all(editor.type(o).is_static for o in node.outputs) or _has_symbols(node.attributes):
        return False
    made = sum(_bytes(editor, o) for o in node.outputs)
    read = sum(_bytes(editor, i) for i in node.inputs if i)
    return made <= max(_SMALL, 2 * read) or _feeds_contraction(editor, node)


def _has_symbols(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_symbols, value.values()))
    return any(map(_has_symbols, value)) if isinstance(value, tuple | list) else isinstance(value, Expr)


def _bytes(editor: Editor, value: str) -> int:
    kind = editor.type(value)
    total = kind.dtype.bytes
    for dim in kind.shape:
        total *= dim if not isinstance(dim, Expr) else 1
    return total


def _feeds_contraction(editor: Editor, node: Node) -> bool:
    """Whether a contraction reads the node's output, perhaps after it is moved into another layout."""
    for output in node.outputs:
        for user in editor.users(output):
            kind = editor.kind(user)
            moved = kind in (OpKind.VIEW, OpKind.INJECTIVE) and len(user.inputs) == 1
            if kind is OpKind.CONTRACTION or (moved and _feeds_contraction(editor, user)):
                return True
    return False


def compute(editor: Editor, node: Node) -> list[Array]:
    """The outputs of a node of constants: by numpy where its definition is a copy, else by its tensor expressions."""
    arrays = [editor.constants[i] if i else None for i in node.inputs]
    shortcut = _COPIES.get(node.op)
    if shortcut is not None and arrays and arrays[0] is not None:
        return [shortcut(arrays[0], node.attributes)]
    if node.op == "Fill":
        kind = editor.type(node.outputs[0])
        return [np.full([int(d) for d in kind.shape], node.attributes["value"], kind.dtype.numpy)]  # type: ignore[arg-type]
    return _by_definition(editor, node, arrays)


def _by_definition(editor: Editor, node: Node, arrays: list[Array | None]) -> list[Array]:
    tensors = [
        placeholder(editor.shape(i), editor.type(i).dtype, i) if a is not None else None
        for i, a in zip(node.inputs, arrays, strict=True)
    ]
    outputs = editor.operators[node.op].lower(editor.call(node), tensors)
    feeds: dict[Tensor, Array] = {t: a for t, a in zip(tensors, arrays, strict=True) if t is not None and a is not None}
    return evaluate(outputs, feeds)


def pack_panels(matrix: Array, attributes: Mapping[str, Any]) -> Array:
    """[K, N] ([N, K] when transposed) to zero padded column panels [ceil(N / nr), K, nr]."""
    columns = matrix if attributes.get("transposed") else matrix.T
    width = attributes["nr"]
    return _blocked_rows(columns, width).transpose(0, 2, 1)


def interleave(matrix: Array, attributes: Mapping[str, Any]) -> Array:
    """The operator PackInterleaved: [K, N] to [ceil(N / nr), ceil(K / word), nr, word], zero padded."""
    words = _blocked_rows(matrix, attributes.get("word", WORD)).transpose(2, 0, 1)
    return _blocked_rows(words, attributes["nr"]).transpose(0, 2, 1, 3)


def interleave_weights(weights: Array, attributes: Mapping[str, Any]) -> Array:
    """The operator PackConvInterleaved: its shapes are described there."""
    columns = _blocked_rows(weights, attributes["block"])  # [Ko, ki, C, kernel...]
    channels = _blocked_rows(np.moveaxis(columns, 2, 0), attributes["input_block"])  # [Co, cq * word + ci, Ko, ki, ...]
    words = channels.reshape(len(channels), -1, attributes.get("word", WORD), *channels.shape[2:])
    return np.moveaxis(words, (0, 1, 2, 4), (1, -3, -1, -2))


def _blocked_rows(array: Array, block: int) -> Array:
    """[K, ...] to [ceil(K / block), block, ...], zero padded."""
    count = -(-array.shape[0] // block)
    padded = np.zeros((count * block, *array.shape[1:]), array.dtype)
    padded[: array.shape[0]] = array
    return padded.reshape(count, block, *array.shape[1:])


def pack_weights(weights: Array, attributes: Mapping[str, Any]) -> Array:
    """The operator PackConvWeights: its shapes are described there."""
    inner = weights[:, 0] if attributes.get("depthwise") else weights
    if input_block := attributes.get("input_block", 0):
        inner = np.moveaxis(inner.reshape(len(inner), -1, input_block, *inner.shape[2:]), 2, -1)
    return np.moveaxis(_blocked_rows(inner, attributes["block"]), 1, -1)


_COPIES: Mapping[str, Callable[[Array, Mapping[str, Any]], Array]] = MappingProxyType(
    {
        "Identity": lambda a, _: a,
        "Reshape": lambda a, attributes: a.reshape([int(d) for d in attributes["shape"]]),
        "Transpose": lambda a, attributes: a.transpose(attributes["perm"]),
        "PackMatMul": pack_panels,
        "PackInterleaved": interleave,
        "PackConvInterleaved": interleave_weights,
        "PackConvWeights": pack_weights,
        "PackWinogradWeights": transform_weights,
        "PackChannels": lambda a, attributes: _blocked_rows(a, attributes["block"]),
    }
)
"""Definitions that numpy has: on weights of many megabytes they are much faster than index expressions."""
