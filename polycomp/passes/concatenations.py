"""Rules that make concatenations read less: pieces that belong together, and concatenations that go on with another."""

from __future__ import annotations

from polycomp.graph import Node
from polycomp.ops.common import axis_of
from polycomp.ops.pieces import pieces
from polycomp.passes.rewrite import Editor


def merge_adjacent_slices(editor: Editor, node: Node) -> bool:
    """Concat(x[a:b], x[b:c], y) is Concat(x[a:c], y): a value that was split, and is put together with more."""
    axis = axis_of(editor.call(node), len(editor.shape(node.outputs[0])))
    for position in range(len(node.inputs) - 1):
        first, second = (editor.producer(i, "Slice") for i in node.inputs[position : position + 2])
        if first is None or second is None or not _are_adjacent(editor, first, second, axis):
            continue
        sizes = list(first.attributes["sizes"])
        sizes[axis] = editor.dim(sizes[axis] + second.attributes["sizes"][axis])
        merged = editor.emit("Slice", first.inputs, {**first.attributes, "sizes": tuple(sizes)}, first)
        _concatenate(editor, node, (*node.inputs[:position], merged, *node.inputs[position + 2 :]))
        return True
    return False


def _are_adjacent(editor: Editor, first: Node, second: Node, axis: int) -> bool:
    """Whether the second slice begins where the first one ends, and is like it in all other dimensions."""
    if first.inputs != second.inputs or any(s != 1 for s in (*first.attributes["steps"], *second.attributes["steps"])):
        return False
    (a, n), (b, m) = ((s.attributes["starts"], s.attributes["sizes"]) for s in (first, second))
    same = all(editor.dim(a[d] - b[d]) == 0 and editor.dim(n[d] - m[d]) == 0 for d in range(len(a)) if d != axis)
    return same and editor.dim(a[axis] + n[axis] - b[axis]) == 0


def continue_concatenation(editor: Editor, node: Node) -> bool:
    """Concat(a, b, c), where there is a Concat(a, b) too, is Concat(Concat(a, b), c), if these are contiguous pieces.

    A DenseNet whose layers concatenate all features before them so becomes one block that grows (``sharing``).
    """
    if pieces(editor.call(node)) is None:
        return False
    axis = axis_of(editor.call(node), len(editor.shape(node.outputs[0])))
    begun = [u for u in editor.users(node.inputs[0]) if u.op == "Concat" and _begins(editor, u, node, axis)]
    if not begun:
        return False
    longest = max(begun, key=lambda u: len(u.inputs))
    _concatenate(editor, node, (longest.outputs[0], *node.inputs[len(longest.inputs) :]))
    return True


def _begins(editor: Editor, other: Node, node: Node, axis: int) -> bool:
    """Whether the operands of ``other`` are the first ones of ``node``, but not all."""
    count = len(other.inputs)
    if not 1 < count < len(node.inputs) or other.inputs != node.inputs[:count]:
        return False
    return axis_of(editor.call(other), len(editor.shape(other.outputs[0]))) == axis


def _concatenate(editor: Editor, node: Node, parts: tuple[str, ...]) -> None:
    editor.replace(node, parts[0] if len(parts) == 1 else editor.emit("Concat", parts, node.attributes, node))
