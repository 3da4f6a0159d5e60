"""Simplification: nodes that do nothing, that undo each other, or that a cheaper one replaces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from polycomp.expr import Expr
from polycomp.graph import Graph, Node, OpKind
from polycomp.graph.verify import same_dim, same_type
from polycomp.options import Options
from polycomp.passes.concatenations import continue_concatenation, merge_adjacent_slices
from polycomp.passes.rewrite import Editor, Rule, apply_rules
from polycomp.te import Dim


def simplify(graph: Graph, options: Options) -> Graph:
    """Apply the rules below until none fits."""
    return apply_rules(graph, RULES)


def _same_shape(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return len(a) == len(b) and all(same_dim(x, y) for x, y in zip(a, b, strict=True))


def drop_identity(editor: Editor, node: Node) -> bool:
    """Identity(x) is x, unless it makes an output of what is not computed."""
    (x,), (out,) = node.inputs, node.outputs
    if editor.is_output(out) and (editor.producer(x) is None or editor.is_output(x)):
        return False
    editor.replace(node, x)
    return True


def drop_without_effect(editor: Editor, node: Node) -> bool:
    """Casts to the same dtype, reshapes to the same shape, transposes that move nothing, slices of everything."""
    x, out = editor.type(node.inputs[0]), editor.type(node.outputs[0])
    if not same_type(x, out):
        return False
    moves = {
        "Transpose": lambda: tuple(node.attributes["perm"]) != tuple(range(x.rank)),
        "Slice": lambda: any(s != 1 for s in node.attributes["steps"]),
        "Pad": lambda: any(p != 0 for p in node.attributes["pads"]),
        "Tile": lambda: any(r != 1 for r in node.attributes["repeats"]),
    }
    if node.op in moves and moves[node.op]():
        return False
    return _replace_by(editor, node, node.inputs[0])


def _replace_by(editor: Editor, node: Node, value: str) -> bool:
    """Let ``value`` take the place of the node's output; an output of the graph needs a node that makes it."""
    if editor.is_output(node.outputs[0]) and (editor.producer(value) is None or editor.is_output(value)):
        return False
    editor.replace(node, value)
    return True


def merge_transposes(editor: Editor, node: Node) -> bool:
    """Transpose(Transpose(x))."""
    inner = editor.producer(node.inputs[0], "Transpose")
    if inner is None:
        return False
    first, second = inner.attributes["perm"], node.attributes["perm"]
    perm = tuple(first[p] for p in second)
    editor.replace(node, editor.emit("Transpose", inner.inputs, {"perm": perm}, node))
    return True


def transpose_of_ones(editor: Editor, node: Node) -> bool:
    """A transpose that keeps the order of all dimensions but those of size 1 moves no element: it is a reshape."""
    shape = editor.shape(node.inputs[0])
    kept = [p for p in node.attributes["perm"] if shape[p] != 1]
    if kept != sorted(kept):
        return False
    editor.replace(node, editor.emit("Reshape", node.inputs, {"shape": editor.shape(node.outputs[0])}, node))
    return True


def merge_reshapes(editor: Editor, node: Node) -> bool:
    """Reshape(Reshape(x))."""
    inner = editor.producer(node.inputs[0], "Reshape")
    if inner is None:
        return False
    editor.replace(node, editor.emit("Reshape", inner.inputs, {"shape": node.attributes["shape"]}, node))
    return True


_NEUTRAL: Mapping[str, tuple[float, bool]] = MappingProxyType(
    {"Add": (0, True), "Sub": (0, False), "Mul": (1, True), "Div": (1, False), "Pow": (1, False)}
    | {"And": (1, True), "Or": (0, True)}
)
"""The operand that changes nothing, and whether it may also be the left one."""


def drop_neutral(editor: Editor, node: Node) -> bool:
    """x + 0, x * 1, x and true, ... when broadcasting against the constant does not change the shape."""
    neutral, commutes = _NEUTRAL[node.op]
    for position in (1, 0) if commutes else (1,):
        array = editor.constant(node.inputs[position])
        x = node.inputs[1 - position]
        if array is None or not array.size or not same_type(editor.type(x), editor.type(node.outputs[0])):
            continue
        if np.all(array == neutral):
            return _replace_by(editor, node, x)
    return False


def cheaper_power(editor: Editor, node: Node) -> bool:
    """x**2 is x*x, x**3 is x*x*x, x**0.5 is a square root, x**-1 a reciprocal."""
    x, exponent = node.inputs
    power = editor.scalar(exponent)
    if not same_type(editor.type(x), editor.type(node.outputs[0])):
        return False
    floating = editor.type(x).dtype.is_float
    if power in (2.0, 3.0):
        square = editor.emit("Mul", (x, x), {}, node)
        editor.replace(node, square if power == 2.0 else editor.emit("Mul", (square, x), {}, node))
    elif floating and power in (0.5, -1.0):
        editor.replace(node, editor.emit("Sqrt" if power == 0.5 else "Reciprocal", (x,), {}, node))
    else:
        return False
    return True


def divide_by_power_of_two(editor: Editor, node: Node) -> bool:
    """x / 8 is x * 0.125, exactly."""
    divisor = editor.scalar(node.inputs[1])
    kind = editor.type(node.inputs[1])
    if divisor is None or not kind.dtype.is_float or not 1e-4 < abs(divisor) < 1e4:
        return False
    if abs(math.frexp(divisor)[0]) != 0.5:
        return False
    factor = editor.add_constant(np.reciprocal(editor.constants[node.inputs[1]]), "scale")
    editor.replace(node, editor.emit("Mul", (node.inputs[0], factor), {}, node))
    return True


def choose_known(editor: Editor, node: Node) -> bool:
    """Where(c, x, y) is x or y when c is true or false everywhere."""
    condition = editor.constant(node.inputs[0])
    if condition is None or not condition.size or condition.any() != condition.all():
        return False
    chosen = node.inputs[1 if condition.all() else 2]
    return same_type(editor.type(chosen), editor.type(node.outputs[0])) and _replace_by(editor, node, chosen)


def pairwise_sum(editor: Editor, node: Node) -> bool:
    """Variadic operators of one operand do nothing; a Sum of several is a chain of additions, as is Max and Min."""
    if len(node.inputs) == 1:
        return _replace_by(editor, node, node.inputs[0])
    if node.op == "Mean":
        return False
    if node.op != "Sum" and len(node.inputs) == 2:
        return False
    op = "Add" if node.op == "Sum" else node.op
    total = node.inputs[0]
    for term in node.inputs[1:]:
        total = editor.emit(op, (total, term), {}, node)
    editor.replace(node, total)
    return True


def split_to_slices(editor: Editor, node: Node) -> bool:
    """Each part of a Split on its own, so that each can be read directly by what uses it."""
    x, axis = node.inputs[0], node.attributes["axis"]
    shape = editor.shape(x)
    start: Dim = 0
    parts = []
    for size in node.attributes["sizes"]:
        attributes = {
            "starts": tuple(start if d == axis else 0 for d in range(len(shape))),
            "steps": (1,) * len(shape),
            "sizes": tuple(size if d == axis else n for d, n in enumerate(shape)),
        }
        parts.append(editor.emit("Slice", (x,), attributes, node))
        start = editor.dim(start + size)
    editor.replace(node, *parts)
    return True


def reshape_before_slice(editor: Editor, node: Node) -> bool:
    """Reshape(Slice(x)) that splits the sliced last dimension into rows becomes Slice(Reshape(x)).

    The reshape is then of memory that exists, and the slice can be read through (heads of a joint query-key-value
    projection).
    """
    inner = editor.producer(node.inputs[0], "Slice")
    if inner is None:
        return False
    x, shape, target = editor.shape(inner.inputs[0]), editor.shape(node.inputs[0]), editor.shape(node.outputs[0])
    if len(target) <= len(shape) or not _same_shape(shape[:-1], target[: len(shape) - 1]):
        return False
    starts, steps = inner.attributes["starts"], inner.attributes["steps"]
    rows = target[len(shape) - 1 :]
    width = math.prod(d for d in rows[1:] if not isinstance(d, Expr))
    last = (x[-1], starts[-1], shape[-1])
    numbers = [d for d in (*last, *rows) if not isinstance(d, Expr)]
    only_last = all(s == 1 for s in steps) and _same_shape(shape[:-1], x[:-1])
    if not only_last or len(numbers) != 3 + len(rows) or not width or any(n % width for n in numbers[:3]):
        return False
    whole = editor.emit("Reshape", inner.inputs, {"shape": (*x[:-1], numbers[0] // width, *rows[1:])}, node)
    rank = len(target)
    position = len(shape) - 1
    attributes = {
        "starts": tuple(numbers[1] // width if d == position else 0 for d in range(rank)),
        "steps": (1,) * rank,
        "sizes": target,
    }
    editor.replace(node, editor.emit("Slice", (whole,), attributes, node))
    return True


def pad_into_window(editor: Editor, node: Node) -> bool:
    """Zeros padded around the spatial dimensions before a convolution are the convolution's own pads; before one of
    integers, what it is filled with."""
    inner = editor.producer(node.inputs[0], "Pad")
    if inner is None or inner.attributes["mode"] != "constant":
        return False
    if node.op == "ConvInteger" and len(node.inputs) > 2:  # around its data is the zero point, whatever that is
        return False
    fill = editor.scalar(inner.inputs[1]) if len(inner.inputs) > 1 and inner.inputs[1] else 0.0
    pads, rank = inner.attributes["pads"], len(editor.shape(inner.inputs[0]))
    outer = (*pads[:2], *pads[rank : rank + 2])
    if fill != float(node.attributes.get("fill", 0)) or any(isinstance(p, Expr) for p in pads) or any(outer):
        return False
    added = (*pads[2:rank], *pads[rank + 2 :])
    own = node.attributes["pads"]
    attributes = {**node.attributes, "pads": tuple(a + b for a, b in zip(own, added, strict=True))}
    editor.update(node, inputs=(inner.inputs[0], *node.inputs[1:]), attributes=attributes)
    return True


def mean_to_pool(editor: Editor, node: Node) -> bool:
    """The mean over all spatial dimensions is GlobalAveragePool, which knows blocked layouts."""
    rank = len(editor.shape(node.inputs[0]))
    if rank != 4 or tuple(node.attributes["axes"]) != (2, 3) or not editor.type(node.inputs[0]).dtype.is_float:
        return False
    pooled = editor.emit("GlobalAveragePool", node.inputs, {}, node)
    if not node.attributes["keepdims"]:
        pooled = editor.emit("Reshape", (pooled,), {"shape": editor.shape(node.outputs[0])}, node)
    editor.replace(node, pooled)
    return True


def broadcast_directly(editor: Editor, node: Node) -> bool:
    """An element-wise operator broadcasts by itself: an Expand before it that changes nothing more is dropped."""
    if editor.kind(node) is not OpKind.ELEMENTWISE or len(node.inputs) < 2:
        return False
    for position, value in enumerate(node.inputs):
        expand = editor.producer(value, "Expand") if value else None
        if expand is None:
            continue
        inputs = tuple(expand.inputs[0] if p == position else i for p, i in enumerate(node.inputs))
        (found, *_) = editor.infer(node.op, inputs, node.attributes, node.name)
        if same_type(found, editor.type(node.outputs[0])):
            editor.update(node, inputs=inputs)
            return True
    return False


def sink_reshape(editor: Editor, node: Node) -> bool:
    """f(Reshape(x)) becomes Reshape(f(x)) for a unary element-wise f: reshapes gather, meet and cancel."""
    if editor.kind(node) is not OpKind.ELEMENTWISE or len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    reshape = editor.producer(node.inputs[0], "Reshape")
    if reshape is None or editor.sole_user(reshape.outputs[0]) is None or editor.producer(reshape.inputs[0]) is None:
        return False
    moved = editor.emit(node.op, reshape.inputs, node.attributes, node)
    editor.replace(node, editor.emit("Reshape", (moved,), {"shape": reshape.attributes["shape"]}, node))
    return True


def sink_reshape_by_rows(editor: Editor, node: Node) -> bool:
    """A reshape that keeps the last dimension moves below a product with a matrix, or an operand for each column."""
    reshape = editor.producer(node.inputs[0], "Reshape")
    if reshape is None or editor.sole_user(reshape.outputs[0]) is None:
        return False
    before, after = editor.shape(reshape.inputs[0]), editor.shape(reshape.outputs[0])
    other = editor.shape(node.inputs[1])
    if not before or not after or len(before) < 2 or len(after) < 2 or not same_dim(before[-1], after[-1]):
        return False
    if node.op == "MatMul":
        fits = len(other) == 2 and node.inputs[1] in editor.constants
    else:
        fits = node.inputs[1] in editor.constants and all(d == 1 for d in other[:-1]) and len(other) <= len(after)
        other = (1,) * max(0, len(other) - len(before)) + other[-len(before) :] if other else other
    if not fits:
        return False
    operand = node.inputs[1]
    if node.op != "MatMul" and other != editor.shape(operand):
        operand = editor.emit("Reshape", (operand,), {"shape": other}, node)
    moved = editor.emit(node.op, (reshape.inputs[0], operand), node.attributes, node)
    shape = editor.shape(node.outputs[0])
    editor.replace(node, editor.emit("Reshape", (moved,), {"shape": shape}, node))
    return True


def sink_two_reshapes(editor: Editor, node: Node) -> bool:
    """Add(Reshape(x), y) with y of the reshaped shape: Reshape(Add(x, Reshape(y))), when y was that shape already."""
    for position in (0, 1):
        reshape = editor.producer(node.inputs[position], "Reshape")
        if reshape is None or editor.sole_user(reshape.outputs[0]) is None:
            continue
        maker = editor.producer(reshape.inputs[0])
        other = node.inputs[1 - position]
        if maker is None or editor.kind(maker) is not OpKind.CONTRACTION or other in editor.constants:
            continue
        rival = editor.producer(other)
        if editor.sole_user(reshape.inputs[0]) is None or (rival and editor.kind(rival) is OpKind.CONTRACTION):
            continue
        if not _same_shape(editor.shape(other), editor.shape(reshape.outputs[0])):
            continue
        moved = editor.emit("Reshape", (other,), {"shape": editor.shape(reshape.inputs[0])}, node)
        operands = (reshape.inputs[0], moved) if position == 0 else (moved, reshape.inputs[0])
        total = editor.emit(node.op, operands, node.attributes, node)
        editor.replace(node, editor.emit("Reshape", (total,), {"shape": editor.shape(node.outputs[0])}, node))
        return True
    return False


_BY_ROWS: tuple[Rule, ...] = (sink_reshape_by_rows,)
RULES: Mapping[str, Sequence[Rule]] = MappingProxyType(
    {
        "Identity": (drop_identity,),
        "Cast": (drop_without_effect,),
        "Reshape": (drop_without_effect, merge_reshapes, reshape_before_slice),
        "Transpose": (drop_without_effect, merge_transposes, transpose_of_ones),
        "Slice": (drop_without_effect,),
        "Pad": (drop_without_effect,),
        "Tile": (drop_without_effect,),
        "Expand": (drop_without_effect,),
        "Add": (drop_neutral, sink_reshape_by_rows, sink_two_reshapes),
        "Sub": (drop_neutral,),
        "Mul": (drop_neutral, sink_reshape_by_rows),
        "Div": (drop_neutral, divide_by_power_of_two),
        "Pow": (drop_neutral, cheaper_power),
        "And": (drop_neutral,),
        "Or": (drop_neutral,),
        "Sum": (pairwise_sum,),
        "Max": (pairwise_sum,),
        "Min": (pairwise_sum,),
        "Mean": (pairwise_sum,),
        "Split": (split_to_slices,),
        "Where": (choose_known,),
        "Concat": (merge_adjacent_slices, continue_concatenation),
        **dict.fromkeys(("Conv", "ConvInteger"), (pad_into_window,)),
        "ReduceMean": (mean_to_pool,),
        "MatMul": _BY_ROWS,
        "": (broadcast_directly, sink_reshape),
    }
)


def eliminate_common(graph: Graph, options: Options) -> Graph:
    """Nodes that compute the same from the same are one; small constants of equal content too."""
    editor = Editor(graph)
    same = _equal_constants(editor)
    seen: dict[Any, Node] = {}
    for node in editor.nodes():
        current = editor.update(node, inputs=tuple(same.get(i, i) for i in node.inputs))
        key = (current.op, current.inputs, repr(sorted(current.attributes.items())), len(current.outputs))
        first = seen.setdefault(key, current)
        if first is current or any(map(editor.is_output, current.outputs)):
            continue
        same.update(zip(current.outputs, first.outputs, strict=True))
        editor.replace(current, *first.outputs)
    return editor.finish()


def _equal_constants(editor: Editor) -> dict[str, str]:
    """Which constant each small constant equals bit by bit."""
    first: dict[Any, str] = {}
    same: dict[str, str] = {}
    for name, array in editor.constants.items():
        if array.nbytes <= 1 << 16:
            kept = first.setdefault((array.dtype.str, array.shape, array.tobytes()), name)
            if kept != name:
                same[name] = kept
    return same


def dead_code(graph: Graph, options: Options) -> Graph:
    """Only what the outputs need."""
    return Editor(graph).finish()
