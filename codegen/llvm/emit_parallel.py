"""Parallel loops: the body becomes a function of its own that the thread pool calls on chunks of the iterations.

Two functions in fact: one unpacks what the body uses from its surroundings, the other has it as parameters, because
that is where LLVM can be told that the buffers do not overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from polycomp.codegen.llvm import emit_index, linear
from polycomp.codegen.llvm.builder import FunctionBuilder, Value
from polycomp.codegen.llvm.emit_expr import index
from polycomp.codegen.llvm.emit_loop import counted_loop
from polycomp.codegen.llvm.frame import Binding, Frame
from polycomp.codegen.llvm.linear import Atom, Linear
from polycomp.expr import Load, Var, walk, wrap
from polycomp.loops import Buffer, For, Prefetch, Stmt, Store
from polycomp.loops.visit import expressions
from polycomp.loops.visit import walk as walk_statements

Emit = Callable[[Frame, Stmt], None]

_WORD = 8  # bytes of one captured pointer or number
_OUTSIDE = 10**9  # orders the atoms of the calling function before all others


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """A value of the calling function that the outlined one uses: its type, and its name outside and inside."""

    type: str
    outer: str
    inner: str
    attributes: str = ""


@dataclasses.dataclass
class _Capture:
    """All that is handed to the outlined function."""

    parameters: list[_Parameter] = dataclasses.field(default_factory=list)
    pointers: dict[Buffer, str] = dataclasses.field(default_factory=dict)
    env: dict[Var, Binding] = dataclasses.field(default_factory=dict)
    atoms: dict[Atom, Atom] = dataclasses.field(default_factory=dict)

    def add(self, type_text: str, outer: str, attributes: str = "", inner: str = "") -> str:
        name = inner or f"%c{len(self.parameters)}"
        self.parameters.append(_Parameter(type_text, outer, name, attributes))
        return name

    def binding(self, outer: Binding) -> Binding:
        """The same value as the outlined function sees it."""
        if isinstance(outer, Linear):
            return self.linear(outer)
        if not outer.ref.startswith("%"):
            return outer
        return Value(self.add(outer.type, outer.ref), outer.dtype)

    def linear(self, outer: Linear) -> Linear:
        terms = {tuple(self._atom(a) for a in monomial): c for monomial, c in outer.terms.items()}
        return Linear(terms, outer.constant)

    def _atom(self, outer: Atom) -> Atom:
        if outer not in self.atoms:
            name = self.add("i64", outer.ref)
            self.atoms[outer] = dataclasses.replace(outer, ref=name, order=outer.order - _OUTSIDE)
        return self.atoms[outer]


def parallel(frame: Frame, loop: For, start: Linear, extent: Linear, emit: Emit) -> None:
    """Hand the iterations of ``loop`` to the thread pool; ``emit`` emits a statement."""
    b = frame.b
    name = f"{frame.kernel}.parallel{b.order()}"
    capture = _capture(frame, loop)
    inner_start, inner_extent = capture.linear(start), capture.linear(extent)
    _define_body(frame, loop, name, capture, inner_start, inner_extent, emit)
    b.module.define(name, _chunk_function(name, capture.parameters))
    closure = _closure(frame, capture.parameters)
    b.module.declare("polycomp_parallel_for", "void", "ptr, ptr, ptr, i64", " nounwind")
    pool = b.fresh(f"load ptr, ptr %context, align {_WORD}")
    count = emit_index.to_value(b, extent)
    b.void(f"call void @polycomp_parallel_for(ptr {pool}, ptr @{name}, ptr {closure}, {count})")
    frame.loaded = {}


def _capture(frame: Frame, loop: For) -> _Capture:
    capture = _Capture()
    capture.add("ptr", "%workspace", " align 64", "%workspace")
    capture.add("ptr", "%context", "", "%context")
    used = [e for stmt in walk_statements(loop.body) for e in expressions(stmt)]
    buffers = dict.fromkeys(b for stmt in walk_statements(loop.body) for b in _buffers(stmt))
    for buffer in buffers:
        if buffer in frame.pointers:
            capture.pointers[buffer] = capture.add("ptr", frame.pointers[buffer], f" noalias align {buffer.alignment}")
        used += [wrap(dim) for dim in buffer.shape]
    plan = frame.plan
    if plan.private:
        sizes = (plan.workspace.shared, plan.workspace.per_thread, *(plan.offsets[b] for b in plan.private))
        used += [wrap(size) for size in sizes]
    variables = dict.fromkeys(n for e in used for n in walk(e) if isinstance(n, Var))
    for var in variables:
        if var in frame.env:
            capture.env[var] = capture.binding(frame.env[var])
    return capture


def _buffers(stmt: Stmt) -> Iterator[Buffer]:
    """The buffers that ``stmt`` itself loads from, stores to or prefetches."""
    if isinstance(stmt, Store | Prefetch):
        yield stmt.buffer
    for e in expressions(stmt):
        yield from (node.source for node in walk(e) if isinstance(node, Load))


def _define_body(
    frame: Frame, loop: For, name: str, capture: _Capture, start: Linear, extent: Linear, emit: Emit
) -> None:
    """Define the function that executes iterations ``%begin .. %end - 1``."""
    b = FunctionBuilder(frame.b.module)
    inner = Frame(b, frame.kernel, frame.plan, capture.env, capture.pointers, in_parallel=True)
    _private_memory(inner)
    high = linear.bounds(extent)[1]
    begin = linear.of_atom(b.atom("%begin", 0, high))
    end = linear.of_atom(b.atom("%end", 0, high))

    def iteration(i: Linear) -> None:
        with inner.bound(loop.var, linear.add(start, i)):
            emit(inner, loop.body)

    counted_loop(inner, begin, end, iteration)
    b.void("ret void")
    parameters = ", ".join(f"{p.type}{p.attributes} {p.inner}" for p in capture.parameters)
    signature = f"{parameters}, i64 %begin, i64 %end, i64 %thread"
    text = f"define internal void @{name}.body({signature}) nounwind noinline {{\n{b.body()}\n}}"
    b.module.define(f"{name}.body", text)


def _private_memory(frame: Frame) -> None:
    """``%private``: this thread's own part of the workspace."""
    if not frame.plan.private:
        return
    b, workspace = frame.b, frame.plan.workspace
    thread = linear.of_atom(b.atom("%thread", 0, None))
    each = index(frame, wrap(workspace.per_thread))
    offset = linear.add(index(frame, wrap(workspace.shared)), linear.multiply(each, thread))
    b.void(f"%private = getelementptr i8, ptr %workspace, {emit_index.to_value(b, offset)}")


def _closure(frame: Frame, parameters: list[_Parameter]) -> str:
    """Stack memory of the caller that holds the captured values, one word each."""
    b = frame.b
    closure = b.alloca(f"[{len(parameters)} x i64]", _WORD)
    for position, parameter in enumerate(parameters):
        slot = b.pure(f"getelementptr i8, ptr {closure}, i64 {position * _WORD}")
        b.void(f"store {parameter.type} {parameter.outer}, ptr {slot}, align {_WORD}")
    return closure


def _chunk_function(name: str, parameters: list[_Parameter]) -> str:
    """What the thread pool calls: it unpacks the closure and calls the body."""
    lines = []
    for position, parameter in enumerate(parameters):
        lines.append(f"  %w{position} = getelementptr i8, ptr %closure, i64 {position * _WORD}")
        lines.append(f"  %u{position} = load {parameter.type}, ptr %w{position}, align {_WORD}")
    arguments = ", ".join(f"{p.type} %u{position}" for position, p in enumerate(parameters))
    lines.append(f"  call void @{name}.body({arguments}, i64 %begin, i64 %end, i64 %thread)")
    signature = "ptr %closure, i64 %begin, i64 %end, i64 %thread"
    return f"define internal void @{name}({signature}) nounwind {{\n" + "\n".join(lines) + "\n  ret void\n}"
