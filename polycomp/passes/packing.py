"""Constant right operands of matrix products, packed for vector registers."""

from __future__ import annotations

import math

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node
from polycomp.options import Options
from polycomp.panels import NARROW, are_rows_in_one_set, panel_width, wide_panel
from polycomp.passes.rewrite import Array, Editor
from polycomp.passes.sites import Sites
from polycomp.target import Target

_MANY_ROWS = 512  # with fewer, the time goes by waiting for the matrix, which narrow panels need more slowly
_SOME_ROWS = 96  # for which panels of three vectors pay where the rows do not stay in the second-level cache
_FEW_ROWS = 8  # are no more than a wide tile has: they meet in the first-level cache either way
_MANY_STEPS = 256  # of the reduction: wide panels were measured from here on
_PANELS = (2, 3, 4)  # vectors across, among which tuning may choose


def pack_matrices(graph: Graph, options: Options) -> Graph:
    """MatMul with a constant matrix, and the bias added to it, as MatMulPacked."""
    editor, sites = Editor(graph), Sites(options)
    for name in [n.name for n in editor.nodes()]:
        node = editor.node(name)  # as it is by now: packing one product may change what the next one reads
        if node is not None and node.op == "MatMul" and _is_packable(editor, node):
            _pack(editor, node, options.target, sites)
    return sites.note(editor.finish())


def _is_packable(editor: Editor, node: Node) -> bool:
    a, b = (editor.type(i) for i in node.inputs)
    return node.inputs[1] in editor.constants and a.dtype.is_float and a.rank >= 2 and b.rank == 2 and b.is_static


def _pack(editor: Editor, node: Node, target: Target, sites: Sites) -> None:
    (depth, columns), left = editor.constants[node.inputs[1]].shape, editor.type(node.inputs[0])
    rows = math.prod(d for d in left.shape[:-1] if isinstance(d, int)) if left.is_static else 0
    lanes = panel_width(target, left.dtype) // NARROW
    own = _panel_for(rows, depth, columns, target, left.dtype) // lanes
    problem = f"MatMul of {rows or 'any'}x{depth} by {depth}x{columns} {left.dtype.value}"
    width = lanes * sites.decide(problem, "panel", own, _PANELS, node)
    packed = editor.emit("PackMatMul", (node.inputs[1],), {"nr": width, "transposed": False}, node)
    last, bias = column_bias(editor, node)
    inputs = (node.inputs[0], packed) if bias is None else (node.inputs[0], packed, bias)
    product = editor.emit("MatMulPacked", inputs, {"n": columns, "nr": width}, last)
    editor.replace(last, product)


def _panel_for(rows: int, depth: int, columns: int, target: Target, dtype: DType) -> int:
    """The width of panels for ``rows`` (0: not known) times a matrix of ``depth`` by ``columns``: a wide one has the
    rows read less often, a narrow one arrives sooner."""
    if rows >= _MANY_ROWS and depth >= _MANY_STEPS:
        return wide_panel(columns, target, dtype)
    is_far = rows >= _SOME_ROWS and rows * depth * dtype.bytes > target.l2_bytes // 2
    if is_far or (not 1 <= rows <= _FEW_ROWS and are_rows_in_one_set(depth * dtype.bytes)):
        return wide_panel(columns, target, dtype, most=3)
    return panel_width(target, dtype)


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
