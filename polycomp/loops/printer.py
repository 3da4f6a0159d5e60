"""Readable text of a loop nest."""

from __future__ import annotations

from polycomp.expr import Const, to_text
from polycomp.loops.ir import (
    Alloc,
    Await,
    Barrier,
    Block,
    Buffer,
    Commit,
    For,
    If,
    Let,
    LoopNest,
    Prefetch,
    Stmt,
    Store,
)
from polycomp.poly.tree import LoopKind

_INDENT = "  "
_ASSIGN = {"": "=", "sum": "+=", "prod": "*=", "and": "&=", "or": "|="}


def nest_text(nest: LoopNest) -> str:
    """The whole kernel as indented pseudo-code."""
    arguments = [_declaration(b) for b in (*nest.inputs, *nest.outputs)]
    sizes = [v.name for v in nest.sizes]
    head = f"kernel {nest.name}({', '.join([*arguments, *sizes])}):"
    return "\n".join([head, *_lines(nest.body, 1)])


def _declaration(buffer: Buffer) -> str:
    return f"{buffer.name}: {buffer.dtype.value}[{', '.join(map(str, buffer.shape))}]"


def _lines(stmt: Stmt, depth: int) -> list[str]:
    pad = _INDENT * depth
    match stmt:
        case For():
            kind = "" if stmt.kind is LoopKind.SERIAL else f" {stmt.kind.value}"
            start = "" if stmt.start == Const(0, stmt.start.dtype) else f"{to_text(stmt.start)}, "
            return [
                f"{pad}for {stmt.var.name} in range({start}{to_text(stmt.stop)}){kind}:",
                *_lines(stmt.body, depth + 1),
            ]
        case If():
            lines = [f"{pad}if {to_text(stmt.condition)}:", *_lines(stmt.body, depth + 1)]
            if stmt.orelse is not None:
                lines += [f"{pad}else:", *_lines(stmt.orelse, depth + 1)]
            return lines
        case Let():
            return [f"{pad}{stmt.var.name} = {to_text(stmt.value)}", *_lines(stmt.body, depth)]
        case Alloc():
            return [f"{pad}{stmt.buffer.scope.value} {_declaration(stmt.buffer)}", *_lines(stmt.body, depth)]
        case Block():
            return [line for s in stmt.stmts for line in _lines(s, depth)]
        case Store():
            return [pad + _store_text(stmt)]
        case Barrier():
            return [f"{pad}barrier"]
        case Commit():
            return [f"{pad}commit"]
        case Await():
            return [f"{pad}await all but {stmt.pending}"]
        case Prefetch():
            return [f"{pad}prefetch {stmt.buffer.name}[{', '.join(map(to_text, stmt.indices))}]"]
    raise TypeError(f"not a loop-nest statement: {type(stmt).__name__}")


def _store_text(store: Store) -> str:
    place = f"{store.buffer.name}[{', '.join(map(to_text, store.indices))}]"
    value = to_text(store.value)
    if store.reduce in _ASSIGN:
        return f"{place} {_ASSIGN[store.reduce]} {value}"
    return f"{place} = {store.reduce}({place}, {value})"
