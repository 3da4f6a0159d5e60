"""Scales and shifts by constants: batch normalisation and its like, folded into the weights before them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node
from polycomp.graph.verify import same_type
from polycomp.options import Options
from polycomp.passes.rewrite import Array, Editor, Rule, apply_rules


def fold_affine(graph: Graph, options: Options) -> Graph:
    """Turn BatchNormalization and Gemm into products and sums, and these into weights and biases where they follow
    a convolution or a matrix product."""
    return apply_rules(graph, RULES)


def split_batch_normalization(editor: Editor, node: Node) -> bool:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias as x * a + b with a and b computed in float64."""
    parameters = [editor.constant(v) for v in node.inputs[1:5]]
    kind = editor.type(node.outputs[0])
    if not kind.dtype.is_float or any(p is None for p in parameters):
        return False
    scale, bias, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + node.attributes["epsilon"])
        shift = bias - mean * factor
    shape = (-1, *(1,) * (kind.rank - 2))
    names = [editor.add_constant(v.astype(kind.dtype.numpy).reshape(shape), node.name) for v in (factor, shift)]
    scaled = editor.emit("Mul", (node.inputs[0], names[0]), {}, node)
    editor.replace(node, editor.emit("Add", (scaled, names[1]), {}, node))
    return True


def split_gemm(editor: Editor, node: Node) -> bool:
    """alpha * op(A) @ op(B) + beta * C as MatMul, Mul and Add; transposes of constants fold."""
    a, b, *rest = node.inputs
    if node.attributes.get("transA"):
        a = editor.emit("Transpose", (a,), {"perm": (1, 0)}, node)
    if node.attributes.get("transB"):
        b = editor.emit("Transpose", (b,), {"perm": (1, 0)}, node)
    kind = editor.type(node.outputs[0])
    if not kind.dtype.is_float:
        return False
    result = times(editor, editor.emit("MatMul", (a, b), {}, node), node.attributes.get("alpha", 1.0), node)
    if rest and node.attributes.get("beta", 1.0) != 0:
        result = editor.emit("Add", (result, times(editor, rest[0], node.attributes.get("beta", 1.0), node)), {}, node)
    editor.replace(node, result)
    return True


def times(editor: Editor, value: str, factor: float, at: Node) -> str:
    """``value`` times a number; itself for 1."""
    if factor == 1:
        return value
    name = editor.add_constant(np.array(factor, editor.type(value).dtype.numpy), f"{at.name}.factor")
    return editor.emit("Mul", (value, name), {}, at)


def _constant_operand(editor: Editor, node: Node) -> tuple[str, Array] | None:
    """The other operand and the constant of a Mul or Add by a float constant that does not broadcast the other."""
    for position in (1, 0):
        array = editor.constant(node.inputs[position])
        x = node.inputs[1 - position]
        if array is not None and x not in editor.constants and editor.type(x).dtype.is_float:
            return (x, array) if same_type(editor.type(x), editor.type(node.outputs[0])) else None
    return None


def scale_behind_product(editor: Editor, node: Node) -> bool:
    """MatMul(x * a, y * b) with numbers a and b is MatMul(x, y) * (a * b), which costs no pass over x and y.

    Only for float32 and float64: in float16 sums of what is not scaled yet may overflow.
    """
    if editor.type(node.outputs[0]).dtype not in (DType.FLOAT32, DType.FLOAT64):
        return False
    scaled = [_scaled_by_number(editor, value) for value in node.inputs]
    if not any(scaled):
        return False
    operands = tuple(s[0] if s else value for s, value in zip(scaled, node.inputs, strict=True))
    factor = math.prod(s[1] for s in scaled if s)
    editor.replace(node, times(editor, editor.emit("MatMul", operands, {}, node), factor, node))
    return True


def _scaled_by_number(editor: Editor, value: str) -> tuple[str, float] | None:
    """What a Mul, read once, multiplies by a number, and the number; else None."""
    mul = editor.producer(value, "Mul")
    found = _constant_operand(editor, mul) if mul is not None and editor.sole_user(value) is not None else None
    return (found[0], float(found[1].reshape(-1)[0])) if found is not None and found[1].size == 1 else None


def merge_constants(editor: Editor, node: Node) -> bool:
    """(x * a) * b is x * (a * b), and (x + a) + b is x + (a + b)."""
    found = _constant_operand(editor, node)
    inner = editor.producer(found[0], node.op) if found else None
    if found is None or inner is None or editor.sole_user(found[0]) is None:
        return False
    before = _constant_operand(editor, inner)
    merged = _broadcast(np.multiply if node.op == "Mul" else np.add, before[1], found[1]) if before else None
    if before is None or merged is None:
        return False
    name = editor.add_constant(merged, f"{node.name}.merged")
    editor.replace(node, editor.emit(node.op, (before[0], name), {}, node))
    return True


def scale_before_shift(editor: Editor, node: Node) -> bool:
    """(x + a) * b is x * b + a * b: the product then reaches the weights that x is made with."""
    found = _constant_operand(editor, node)
    inner = editor.producer(found[0], "Add") if found else None
    if found is None or inner is None or editor.sole_user(found[0]) is None:
        return False
    before = _constant_operand(editor, inner)
    shift = _broadcast(np.multiply, before[1], found[1]) if before else None
    if before is None or shift is None:
        return False
    names = [editor.add_constant(v, f"{node.name}.{n}") for v, n in ((found[1], "scale"), (shift, "shift"))]
    scaled = editor.emit("Mul", (before[0], names[0]), {}, node)
    editor.replace(node, editor.emit("Add", (scaled, names[1]), {}, node))
    return True


def _broadcast(function: np.ufunc, a: Array, b: Array) -> Array | None:
    """``function`` in float64, unless the result has more elements than the larger operand."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    if np.prod(shape) > max(a.size, b.size):
        return None
    return np.asarray(function(a.astype(np.float64), b.astype(np.float64))).astype(a.dtype)


def _per_channel(array: Array, rank: int, channels: int) -> Array | None:
    """One value per channel of a constant that broadcasts along dimension 1 only, in float64."""
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or any(d != 1 for i, d in enumerate(shape) if i != 1) or shape[1] not in (1, channels):
        return None
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1).astype(np.float64), channels))


def fold_into_convolution(editor: Editor, node: Node) -> bool:
    """A product or sum by a constant per output channel becomes part of the weights and the bias before it."""
    found = _constant_operand(editor, node)
    conv = editor.producer(found[0]) if found else None
    if found is None or conv is None or conv.op not in ("Conv", "ConvTranspose"):
        return False
    weights = editor.constant(conv.inputs[1])
    has_bias = len(conv.inputs) > 2 and bool(conv.inputs[2])
    bias = editor.constant(conv.inputs[2]) if has_bias else None
    kind = editor.type(conv.outputs[0])
    channels = kind.shape[1]
    if editor.sole_user(found[0]) is None or not isinstance(channels, int) or (has_bias and bias is None):
        return False
    values = _per_channel(found[1], kind.rank, channels)
    if values is None or (node.op == "Mul" and weights is None):
        return False
    shift = np.zeros(channels) if bias is None else bias.astype(np.float64)
    inputs = [conv.inputs[0], conv.inputs[1]]
    if node.op == "Mul" and weights is not None:
        scaled = _scale_weights(weights, values, conv)
        inputs[1] = editor.add_constant(scaled, f"{conv.name}.weights")
        shift = shift * values
    else:
        shift = shift + values
    if node.op == "Add" or has_bias:
        inputs.append(editor.add_constant(shift.astype(kind.dtype.numpy), f"{conv.name}.bias"))
    editor.replace(node, editor.emit(conv.op, inputs, conv.attributes, conv))
    return True


def _scale_weights(weights: Array, values: Array, conv: Node) -> Array:
    """Weights [K, C / group, ...], of a transposed convolution [C, K / group, ...], times a value per K."""
    wide = weights.astype(np.float64)
    if conv.op == "Conv":
        return (wide * values.reshape(-1, *(1,) * (wide.ndim - 1))).astype(weights.dtype)
    groups = conv.attributes.get("group", 1)
    split = wide.reshape(groups, -1, *wide.shape[1:])
    scale = values.reshape(groups, 1, wide.shape[1], *(1,) * (wide.ndim - 2))
    return (split * scale).reshape(wide.shape).astype(weights.dtype)


def fold_into_matrix(editor: Editor, node: Node) -> bool:
    """x @ B * c is x @ (B * c) for a constant B and one c, or one per column."""
    found = _constant_operand(editor, node)
    product = editor.producer(found[0], "MatMul") if found else None
    if found is None or product is None or editor.sole_user(found[0]) is None:
        return False
    matrix = editor.constant(product.inputs[1])
    if matrix is None or matrix.ndim != 2 or found[1].size not in (1, matrix.shape[1]):
        return False
    if found[1].size != 1 and found[1].shape[-1] != found[1].size:
        return False
    scaled = (matrix.astype(np.float64) * found[1].reshape(-1).astype(np.float64)).astype(matrix.dtype)
    name = editor.add_constant(scaled, f"{product.name}.weights")
    editor.replace(node, editor.emit("MatMul", (product.inputs[0], name), {}, node))
    return True


RULES: Mapping[str, Sequence[Rule]] = MappingProxyType(
    {
        "BatchNormalization": (split_batch_normalization,),
        "Gemm": (split_gemm,),
        "MatMul": (scale_behind_product,),
        "Mul": (merge_constants, scale_before_shift, fold_into_convolution, fold_into_matrix),
        "Add": (merge_constants, fold_into_convolution),
    }
)
