"""Products of dequantised operands in integers, as quantisers mean them.

A quantised model says DequantizeLinear -> MatMul -> QuantizeLinear. With scales that do not vary along the sum, the
product of the numbers is that of the integers times the scales; its sum in int32 is exact, where that of float32 would
be rounded. The quantisation behind it is an element-wise epilogue.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp.dtypes import DType
from polycomp.expr import Expr
from polycomp.graph import Graph, Node
from polycomp.options import Options
from polycomp.passes.affine import times
from polycomp.passes.rewrite import Editor, Rule, apply_rules
from polycomp.te import Dim

_BYTES = (DType.INT8, DType.UINT8)
_MOVES = frozenset(["Reshape", "Transpose", "Slice", "Expand", "Concat", "MaxPool", "Identity"])
_LARGEST_PRODUCT = 255 * 255
_FEWEST_OUTPUTS = 8
"""Output channels of a convolution that is worth a blocked layout on any machine."""


def integer_products(graph: Graph, options: Options) -> Graph:
    """MatMul, Gemm and Conv of dequantised operands as MatMulInteger and ConvInteger, rescaled; what only moves numbers
    between quantisations moves bytes."""
    return apply_rules(graph, RULES)


@dataclasses.dataclass(frozen=True)
class _Quantized:
    """(x - zero) * scale; ``zero`` is "" where there is none."""

    x: str
    scale: str
    zero: str


def _quantized(editor: Editor, value: str, rank: int) -> _Quantized | None:
    """The bytes of ``rank`` dimensions that ``value`` is made of, with a float32 scale."""
    node = editor.producer(value, "DequantizeLinear")
    if node is None or editor.type(node.inputs[0]).dtype not in _BYTES or len(editor.shape(value)) != rank:
        return None
    found = _Quantized(*(*node.inputs, "", "")[:3])
    return found if editor.type(found.scale).dtype is DType.FLOAT32 else None


def _operands(editor: Editor, node: Node, along: int) -> tuple[_Quantized, _Quantized] | None:
    """Data with one scale, and constant weights with one, or one per index of their dimension ``along``."""
    ranks = [len(editor.shape(v)) for v in node.inputs[:2]]
    data, weights = (_quantized(editor, v, rank) for v, rank in zip(node.inputs, ranks, strict=False))
    if data is None or weights is None or weights.x not in editor.constants:
        return None
    if not all(_varies_along(editor, v, ranks[0], None) for v in (data.scale, data.zero)):
        return None
    if not all(_varies_along(editor, v, ranks[1], along % ranks[1]) for v in (weights.scale, weights.zero)):
        return None
    shape = editor.shape(weights.x)
    depth = math.prod(d for i, d in enumerate(shape) if i != along % ranks[1] and not isinstance(d, Expr))
    return (data, weights) if depth * _LARGEST_PRODUCT < 2**31 else None


def _varies_along(editor: Editor, value: str, rank: int, dimension: int | None) -> bool:
    """Whether a scale or zero point of an operand of ``rank`` dimensions is one, or varies along ``dimension`` only."""
    shape = editor.shape(value) if value else ()
    skipped = rank - len(shape)
    return all(d == 1 or i + skipped == dimension for i, d in enumerate(shape))


def _rescaled(editor: Editor, total: str, scales: Sequence[str], node: Node) -> str:
    """``total`` as float32, times both scales."""
    wide = editor.emit("Cast", (total,), {"to": DType.FLOAT32}, node)
    return editor.emit("Mul", (wide, editor.emit("Mul", scales, {}, node)), {}, node)


def matmul_of_integers(editor: Editor, node: Node) -> bool:
    """A matrix product with a constant matrix."""
    found = _operands(editor, node, -1)
    if found is None or len(editor.shape(node.inputs[0])) < 2 or len(editor.shape(node.inputs[1])) != 2:
        return False
    data, weights = found
    total = editor.emit("MatMulInteger", (data.x, weights.x, data.zero, weights.zero), {}, node)
    editor.replace(node, _rescaled(editor, total, (data.scale, weights.scale), node))
    return True


def gemm_of_integers(editor: Editor, node: Node) -> bool:
    """alpha * A @ op(B) + beta * C."""
    transposed = bool(node.attributes.get("transB"))
    found = _operands(editor, node, 0 if transposed else 1)
    if found is None or node.attributes.get("transA"):
        return False
    data, weights = found
    columns = weights
    if transposed:
        columns = _Quantized(*(_transposed(editor, v, node) for v in (weights.x, weights.scale, weights.zero)))
    total = editor.emit("MatMulInteger", (data.x, columns.x, data.zero, columns.zero), {}, node)
    result = _rescaled(editor, total, (data.scale, columns.scale), node)
    result = times(editor, result, node.attributes.get("alpha", 1.0), node)
    if len(node.inputs) > 2 and node.inputs[2]:
        addend = times(editor, node.inputs[2], node.attributes.get("beta", 1.0), node)
        result = editor.emit("Add", (result, addend), {}, node)
    editor.replace(node, result)
    return True


def _transposed(editor: Editor, value: str, at: Node) -> str:
    if not value or len(editor.shape(value)) < 2:
        return value
    return editor.emit("Transpose", (value,), {"perm": (1, 0)}, at)


def convolution_of_integers(editor: Editor, node: Node) -> bool:
    """A two-dimensional convolution, dense or depthwise."""
    found = _operands(editor, node, 0)
    shape, group = editor.shape(node.inputs[0]), node.attributes["group"]
    if found is None or len(shape) != 4 or any(isinstance(d, Expr) for d in shape[1:]):
        return False
    data, weights = found
    outputs = editor.shape(weights.x)[0]
    if isinstance(outputs, Expr) or outputs < _FEWEST_OUTPUTS or (group != 1 and not group == shape[1] == outputs):
        return False
    inputs = (data.x, weights.x, data.zero, weights.zero)
    total = editor.emit("ConvInteger", inputs, node.attributes, node)
    scale = _per_channel(editor, weights.scale, node)
    result = _rescaled(editor, total, (data.scale, scale), node)
    if len(node.inputs) > 2 and node.inputs[2]:
        result = editor.emit("Add", (result, _per_channel(editor, node.inputs[2], node)), {}, node)
    editor.replace(node, result)
    return True


def move_bytes(editor: Editor, node: Node) -> bool:
    """Numbers that were dequantised, moved and quantised again in the same way are the bytes, moved; nothing at all may
    have moved them."""
    move = editor.producer(node.inputs[0])
    if move is None or not _is_one_grid(editor, node.inputs[1:]):
        return False
    x = _bytes_on(editor, node.inputs[0], node)
    if x is not None:
        editor.replace(node, x)
        return True
    sources = [_bytes_on(editor, v, node) for v in (move.inputs if move.op == "Concat" else move.inputs[:1])]
    found = tuple(s for s in sources if s is not None)
    if len(found) != len(sources) or len(move.outputs) != 1 or not _is_move(editor, move):
        return False
    fill = node.inputs[2:3] if move.op == "Pad" else ()
    editor.replace(node, editor.emit(move.op, (*found, *fill), move.attributes, move))
    return True


def _is_one_grid(editor: Editor, numbers: Sequence[str]) -> bool:
    """Whether a scale and a zero point are constants of one element each."""
    return len(numbers) == 2 and all(editor.scalar(n) is not None for n in numbers)


def _bytes_on(editor: Editor, value: str, node: Node) -> str | None:
    """What ``value`` was dequantised of, when the quantisation ``node`` undoes that."""
    maker = editor.producer(value, "DequantizeLinear")
    if maker is None or not _is_one_grid(editor, maker.inputs[1:]):
        return None
    same = all(editor.scalar(a) == editor.scalar(b) for a, b in zip(maker.inputs[1:], node.inputs[1:], strict=True))
    kinds = [editor.type(v) for v in (maker.inputs[0], node.outputs[0], maker.inputs[1], node.inputs[1])]
    equal = kinds[0].dtype is kinds[1].dtype in _BYTES and kinds[2].dtype is kinds[3].dtype is DType.FLOAT32
    return maker.inputs[0] if same and equal and editor.shape(value) == kinds[0].shape else None


def _is_move(editor: Editor, node: Node) -> bool:
    """Whether a node gives elements of its input in another order, the largest of some, or zeros around them."""
    if node.op == "Pad":
        zeros = len(node.inputs) < 2 or not node.inputs[1] or editor.scalar(node.inputs[1]) == 0.0
        return zeros or node.attributes["mode"] != "constant"
    return node.op in _MOVES


def _per_channel(editor: Editor, value: str, at: Node) -> str:
    """A value per output channel, in a shape that broadcasts along dimension 1."""
    size: Dim = math.prod(editor.shape(value))
    return value if size == 1 else editor.emit("Reshape", (value,), {"shape": (size, 1, 1)}, at)


RULES: Mapping[str, Sequence[Rule]] = MappingProxyType(
    {
        "MatMul": (matmul_of_integers,),
        "Gemm": (gemm_of_integers,),
        "Conv": (convolution_of_integers,),
        "QuantizeLinear": (move_bytes,),
    }
)
