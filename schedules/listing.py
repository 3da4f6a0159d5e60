"""A kernel's tree as a listing that reads like Python, for terminals and notebooks."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator, Mapping

from polycomp.expr import Expr, Interval, Var, simplify, substitute, wrap
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Ahead, Allocate, Leaf, Loop, LoopKind, Node, Scope
from polycomp.schedules.notation import notation
from polycomp.schedules.rewrite import loop_range

_INDENT = "    "
_RANGES = {
    LoopKind.SERIAL: "range",
    LoopKind.PARALLEL: "parallel",
    LoopKind.VECTOR: "vector",
    LoopKind.UNROLL: "unroll",
    LoopKind.DOT: "dot",
    LoopKind.BLOCK: "block",
    LoopKind.THREAD: "thread",
    LoopKind.TENSOR: "tensor",
}
_MEMORY = {Scope.REGISTER: "registers", Scope.WORKSPACE: "memory", Scope.SHARED: "shared"}
_ASSIGN = {"": "=", "sum": "+=", "prod": "*=", "and": "&=", "or": "|="}
_COLOURS = {
    "range": "inherit",
    "parallel": "#c0392b",
    "vector": "#2471a3",
    "unroll": "#1e8449",
    "dot": "#b9770e",
    "block": "#c0392b",
    "thread": "#7d3c98",
    "tensor": "#b9770e",
    "memory": "#7d6608",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a listing; ``kind`` (of a loop, or "memory") decides its colour."""

    depth: int
    text: str
    kind: str = "range"


def listing(kernel: Kernel) -> str:
    """The loops of a kernel, a line each, as text."""
    return "\n".join(_INDENT * line.depth + line.text for line in _lines(kernel.tree, kernel, 0, kernel.ranges))


def listing_html(kernel: Kernel) -> str:
    """The same as a block of HTML, with the kinds of loops in colours."""
    lines = (
        f'{_INDENT * line.depth}<span style="color: {_COLOURS[line.kind]}">{html.escape(line.text)}</span>'
        for line in _lines(kernel.tree, kernel, 0, kernel.ranges)
    )
    head = html.escape(head_text(kernel))
    return f'<pre style="line-height: 1.3"><b>{head}</b>\n' + "\n".join(lines) + "</pre>"


def head_text(kernel: Kernel) -> str:
    """The kernel's name, inputs and outputs with their types."""
    inputs, outputs = (
        ", ".join(f"{t.name}: {t.dtype.value}[{', '.join(map(str, t.shape))}]" for t in tensors)
        for tensors in (kernel.inputs, kernel.outputs)
    )
    return f"{kernel.name}({inputs}) -> {outputs}"


def _lines(nodes: tuple[Node, ...], kernel: Kernel, depth: int, ranges: Mapping[Var, Interval]) -> Iterator[Line]:
    for node in nodes:
        match node:
            case Loop():
                kind = _RANGES[node.kind]
                head = f"for {node.var.name} in {kind}({notation(wrap(node.extent))}):"
                yield Line(depth, f"{head}{_hints(node)}{_stages(node)}", kind)
                inner = {**ranges, node.var: loop_range(node.extent, ranges)}
                yield from _lines(node.body, kernel, depth + 1, inner)
            case Allocate():
                yield Line(depth, _allocation(node), "memory")
                yield from _lines(node.body, kernel, depth, ranges)
            case Leaf():
                yield from _leaf(node, kernel, depth, ranges)


def _hints(loop: Loop) -> str:
    return "".join(f"  # prefetch {a.tensor.name}, {a.distance} ahead{_around(a)}" for a in loop.prefetch)


def _stages(loop: Loop) -> str:
    return f"  # {loop.stages} stages" if loop.stages > 1 else ""


def _around(ahead: Ahead) -> str:
    return "" if ahead.around is None else f" of {ahead.around.name}"


def _allocation(node: Allocate) -> str:
    where = _MEMORY[node.scope]
    origin = ", ".join(map(notation, node.origin))
    notes = [] if all(notation(o) == "0" for o in node.origin) else [f"from [{origin}] on"]
    notes += [f"dimension {d} modulo {fold}" for d, fold in enumerate(node.folds) if fold]
    notes += ["swizzled"] * node.swizzled
    shape = ", ".join(notation(wrap(d)) for d in node.stored_shape)
    comment = f"  # {', '.join(notes)}" if notes else ""
    return f"{node.tensor.name} = {where}({node.tensor.dtype.value}, [{shape}]){comment}"


def _leaf(leaf: Leaf, kernel: Kernel, depth: int, ranges: Mapping[Var, Interval]) -> Iterator[Line]:
    statement = kernel.statements[leaf.statement]
    values: dict[Var, Expr] = dict(zip(statement.iters, leaf.point, strict=True))
    if leaf.guards:
        yield Line(depth, f"if {' and '.join(map(notation, leaf.guards))}:")
        depth += 1
    indices = ", ".join(notation(simplify(substitute(i, values), ranges)) for i in statement.indices)
    place, value = (
        f"{statement.tensor.name}[{indices}]",
        notation(simplify(substitute(statement.value, values), ranges)),
    )
    if statement.reduce in _ASSIGN:
        yield Line(depth, f"{place} {_ASSIGN[statement.reduce]} {value}")
    else:
        yield Line(depth, f"{place} = {statement.reduce}({place}, {value})")
