"""Zero points taken out of sums of products of integers.

``sum((a - za) * (b - zb))`` is ``sum(a * b) - za * sum(b - zb) - zb * sum(a)``: what is left to multiply are bytes, and
the sums of weights are constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node
from polycomp.options import Options
from polycomp.passes.rewrite import Array, Editor, Rule, apply_rules


def take_out_zero_points(graph: Graph, options: Options) -> Graph:
    """MatMulInteger and ConvInteger without zero points, and what these add to the result."""
    return apply_rules(graph, RULES)


def _zeros(editor: Editor, node: Node) -> tuple[str, str]:
    """The zero points of the two operands; "" for what is 0."""
    given = (*node.inputs[2:4], "", "")[:2]
    first, second = ("" if z and _is_zero(editor.constant(z)) else z for z in given)
    return first, second


def _is_zero(array: Array | None) -> bool:
    return array is not None and not array.any()


def without_zero_of_weights(editor: Editor, node: Node) -> bool:
    """Constant weights less their zero points, where those fit int8."""
    _, zero = _zeros(editor, node)
    weights, points = editor.constant(node.inputs[1]), editor.constant(zero) if zero else None
    if weights is None or points is None:
        return False
    shifted = weights.astype(np.int32) - points.astype(np.int32)
    if shifted.size and (shifted.min() < -128 or shifted.max() > 127):
        return False
    name = editor.add_constant(shifted.astype(np.int8), f"{node.name}.weights")
    _multiply_again(editor, node, (node.inputs[0], name, *node.inputs[2:3]))
    return True


def _multiply_again(editor: Editor, node: Node, inputs: Sequence[str]) -> None:
    editor.replace(node, editor.emit(node.op, inputs, node.attributes, node))


def out_of_matrices(editor: Editor, node: Node) -> bool:
    """Zero points of a matrix product."""
    a, b, *rest = node.inputs
    ranks = [len(editor.shape(v)) for v in (a, b)]
    if not rest or min(ranks) < 2:
        return False
    a_zero, b_zero = (_wide(editor, z, node) for z in _zeros(editor, node))
    result = editor.emit("MatMulInteger", (a, b), {}, node)
    if a_zero:
        sums = _sums(editor, b, b_zero, (ranks[1] - 2,), node)
        result = _subtract_product(editor, result, a_zero, sums, node)
    if b_zero:
        result = _subtract_product(editor, result, b_zero, _sums(editor, a, "", (ranks[0] - 1,), node), node)
    editor.replace(node, result)
    return True


def out_of_convolutions(editor: Editor, node: Node) -> bool:
    """Zero points of a convolution; sums of windows are a convolution with ones."""
    x, w, *rest = node.inputs
    x_zero, w_zero = _zeros(editor, node)
    if not rest or (w_zero and node.attributes["group"] != 1):
        return False
    source, attributes = _padded(editor, x, x_zero, node)
    result = editor.emit("ConvInteger", (source, w), attributes, node)
    shape = editor.shape(w)
    x_wide, w_wide = _wide(editor, x_zero, node), _wide(editor, w_zero, node)
    if x_wide:
        sums = _sums(editor, w, w_wide, tuple(range(1, len(shape))), node)
        per_channel = editor.emit("Reshape", (sums,), {"shape": (shape[0], *(1,) * (len(shape) - 2))}, node)
        result = _subtract_product(editor, result, x_wide, per_channel, node)
    if w_wide:
        ones = editor.add_constant(np.ones([1, *map(int, shape[1:])], np.int8), f"{node.name}.ones")  # type: ignore[arg-type]
        windows = editor.emit("ConvInteger", (source, ones), attributes, node)
        points = editor.shape(w_wide)
        flat = editor.emit("Reshape", (w_wide,), {"shape": points[:1] + points[2:]}, node) if points else w_wide
        result = _subtract_product(editor, result, flat, windows, node)
    editor.replace(node, result)
    return True


def _padded(editor: Editor, x: str, zero: str, node: Node) -> tuple[str, dict[str, object]]:
    """The data and the attributes of a convolution whose padding is the zero point: ``fill``, or elements of a Pad."""
    if not zero:
        return x, {**node.attributes, "fill": 0}
    number = editor.scalar(zero)
    if number is not None:
        return x, {**node.attributes, "fill": int(number)}
    pads, rank = node.attributes["pads"], len(editor.shape(x)) - 2
    around = (0, 0, *pads[:rank], 0, 0, *pads[rank:])
    source = editor.emit("Pad", (x, zero), {"mode": "constant", "pads": around}, node)
    return source, {**node.attributes, "fill": 0, "pads": (0,) * (2 * rank)}


def _wide(editor: Editor, value: str, at: Node) -> str:
    return editor.emit("Cast", (value,), {"to": DType.INT32}, at) if value else ""


def _sums(editor: Editor, value: str, zero: str, axes: tuple[int, ...], at: Node) -> str:
    """The sums of ``value`` less ``zero`` over ``axes``, which are kept, in int32."""
    wide = _wide(editor, value, at)
    centred = editor.emit("Sub", (wide, zero), {}, at) if zero else wide
    return editor.emit("ReduceSum", (centred,), {"axes": axes, "keepdims": True}, at)


def _subtract_product(editor: Editor, value: str, zero: str, sums: str, at: Node) -> str:
    """``value - zero * sums``, as a sum with a constant where both are known."""
    opposite = editor.emit("Neg", (zero,), {}, at)
    return editor.emit("Add", (value, editor.emit("Mul", (opposite, sums), {}, at)), {}, at)


RULES: Mapping[str, Sequence[Rule]] = MappingProxyType(
    {
        "MatMulInteger": (without_zero_of_weights, out_of_matrices),
        "ConvInteger": (without_zero_of_weights, out_of_convolutions),
    }
)
