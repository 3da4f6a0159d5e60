"""Constant right operands of matrix products, packed for vector registers."""

from __future__ import annotations

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node
from polycomp.options import Options
from polycomp.passes.rewrite import Array, Editor
from polycomp.target import Target

_VECTORS = 2


def panel_width(target: Target, dtype: DType = DType.FLOAT32) -> int:
    """Columns of one packed panel: two vector registers of elements (float16 is computed in float32)."""
    return _VECTORS * target.lanes(max(4, dtype.bytes))


def pack_matrices(graph: Graph, options: Options) -> Graph:
    """MatMul with a constant matrix, and the bias added to it, as MatMulPacked."""
    editor = Editor(graph)
    for name in [n.name for n in editor.nodes()]:
        node = editor.node(name)  # as it is by now: packing one product may change what the next one reads
        if node is not None and node.op == "MatMul" and _is_packable(editor, node):
            _pack(editor, node, options.target)
    return editor.finish()


def _is_packable(editor: Editor, node: Node) -> bool:
    a, b = (editor.type(i) for i in node.inputs)
    return node.inputs[1] in editor.constants and a.dtype.is_float and a.rank >= 2 and b.rank == 2 and b.is_static


def _pack(editor: Editor, node: Node, target: Target) -> None:
    width = panel_width(target, editor.type(node.inputs[0]).dtype)
    packed = editor.emit("PackMatMul", (node.inputs[1],), {"nr": width, "transposed": False}, node)
    columns = editor.shape(node.inputs[1])[1]
    last, bias = column_bias(editor, node)
    inputs = (node.inputs[0], packed) if bias is None else (node.inputs[0], packed, bias)
    product = editor.emit("MatMulPacked", inputs, {"n": columns, "nr": width}, last)
    editor.replace(last, product)


def column_bias(editor: Editor, product: Node) -> tuple[Node, str | None]:
    """The Add of a constant per column that alone reads the product, and that constant as a vector."""
    add = editor.sole_user(product.outputs[0])
    if add is None or add.op != "Add":
        return product, None
    other = add.inputs[1] if add.inputs[0] == product.outputs[0] else add.inputs[0]
    array = editor.constant(other)
    columns = editor.shape(product.outputs[0])[-1]
    if array is None or not _is_row(array, columns) or array.ndim > len(editor.shape(product.outputs[0])):
        return product, None
    return add, editor.add_constant(array.reshape(-1), f"{add.name}.bias")


def _is_row(array: Array, columns: object) -> bool:
    return array.ndim >= 1 and array.size == array.shape[-1] == columns
