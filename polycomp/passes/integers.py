"""Products of 8-bit integers on operands that dot product instructions, or a GPU's tensor cores, take."""

from __future__ import annotations

import numpy as np

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node
from polycomp.ops.integer import WORD
from polycomp.options import Options
from polycomp.panels import panel_width
from polycomp.passes.packing import column_bias
from polycomp.passes.rewrite import Array, Editor
from polycomp.target import Target

_HALF = 128
"""What lies between a byte's value as a signed and as an unsigned number when its highest bit is turned over."""


def pack_integers(graph: Graph, options: Options) -> Graph:
    """MatMulInteger with a constant matrix, and the int32 row added to it, as MatMulInterleaved."""
    editor = Editor(graph)
    for name in [n.name for n in editor.nodes()]:
        node = editor.node(name)
        if node is not None and node.op == "MatMulInteger" and _is_packable(editor, node):
            _pack(editor, node, options.target)
    return editor.finish()


def _is_packable(editor: Editor, node: Node) -> bool:
    a, b = (editor.type(i) for i in node.inputs)
    return node.inputs[1] in editor.constants and a.rank >= 2 and b.rank == 2


def _pack(editor: Editor, node: Node, target: Target) -> None:
    left, right = node.inputs
    matrix, words = editor.constants[right], _words(target)
    last, bias = column_bias(editor, node)
    kinds = editor.type(left).dtype, editor.type(right).dtype
    if turns_over(*kinds, target):
        bias = _corrected(editor, matrix, kinds[0], bias, node)
        left = turned_over(editor, left, node)
    packed = editor.emit("PackInterleaved", (right,), words, node)
    inputs = (left, packed) if bias is None else (left, packed, bias)
    product = editor.emit("MatMulInterleaved", inputs, {"n": matrix.shape[1], **words}, last)
    editor.replace(last, product)


def _words(target: Target) -> dict[str, int]:
    """How a matrix is interleaved. For a GPU the steps of each column lie side by side, as tensor cores take them, in
    words that a thread loads at once."""
    return {"nr": 1, "word": target.vector_bytes} if target.is_gpu else {"nr": panel_width(target), "word": WORD}


def turns_over(left: DType, right: DType, target: Target) -> bool:
    """Whether the left operand has not the sign that the machine's instruction wants beside the right one."""
    wanted = {"mixed": left is right, "same": left is not right}
    return wanted.get(target.dot_signs, False)


def turned_over(editor: Editor, value: str, at: Node) -> str:
    """The bytes of ``value`` less 128 as signed numbers, or plus 128 as unsigned ones: the highest bit turned over."""
    half = editor.add_constant(np.array(_HALF, np.uint8), f"{at.name}.half")
    if editor.type(value).dtype is DType.INT8:
        return editor.emit("BitwiseXor", (editor.emit("Cast", (value,), {"to": DType.UINT8}, at), half), {}, at)
    return editor.emit("Cast", (editor.emit("BitwiseXor", (value, half), {}, at),), {"to": DType.INT8}, at)


def _corrected(editor: Editor, matrix: Array, left: DType, bias: str | None, at: Node) -> str:
    """What to add for a left operand that was turned over: 128 times each column's sum, with its sign."""
    row = correction(matrix, (0,), left)
    row = row if bias is None else row + editor.constants[bias]
    return editor.add_constant(row, f"{at.name}.correction")


def correction(weights: Array, axes: tuple[int, ...], left: DType) -> Array:
    """What products with ``weights``, summed over ``axes``, lack when the other operand, of type ``left``, was turned
    over."""
    sums: Array = weights.sum(axis=axes, dtype=np.int32) * np.int32(_HALF if left is DType.UINT8 else -_HALF)
    return sums.astype(np.int32)


def turned_over_number(number: int, kind: DType) -> int:
    """The same of one number of type ``kind``."""
    return number + _HALF if kind is DType.INT8 else number - _HALF
