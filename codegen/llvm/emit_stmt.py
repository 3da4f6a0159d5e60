"""Statements of a loop nest to LLVM IR."""

from __future__ import annotations

from polycomp.codegen.llvm import emit_dot, emit_index, emit_memory, emit_parallel, linear
from polycomp.codegen.llvm import emit_ops as ops
from polycomp.codegen.llvm.builder import Value, memory_type
from polycomp.codegen.llvm.emit_expr import index, locate, value
from polycomp.codegen.llvm.emit_loop import counted_loop
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import Linear
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Var, free_vars, wrap
from polycomp.loops import Alloc, Block, Buffer, For, If, Let, LoopKind, Prefetch, Scope, Stmt, Store
from polycomp.loops.visit import inner
from polycomp.target import ALIGNMENT

_VECTORS_AT_ONCE = 4  # registers of 4-byte elements that one piece of a vector loop may fill
_PIECES_UNROLLED = 8


def statement(frame: Frame, stmt: Stmt) -> None:
    """Emit ``stmt`` at the current place."""
    match stmt:
        case Block():
            for child in stmt.stmts:
                statement(frame, child)
        case Store():
            _store(frame, stmt)
        case For():
            _for(frame, stmt)
        case If():
            _if(frame, stmt)
        case Let():
            bound = index(frame, stmt.value) if stmt.var.dtype is DType.INT64 else value(frame, stmt.value)
            with frame.bound(stmt.var, bound):
                statement(frame, stmt.body)
        case Alloc():
            _allocate(frame, stmt.buffer)
            statement(frame, stmt.body)
        case Prefetch():
            _prefetch(frame, stmt)
        case _:
            raise CompileError(f"kernel {frame.kernel!r} holds a {type(stmt).__name__}, which is no statement")


def _store(frame: Frame, stmt: Store) -> None:
    if stmt.source and stmt.source != frame.source:
        frame.source = stmt.source
        frame.b.comment(stmt.source)
    stored = value(frame, stmt.value)
    emit_memory.store(frame, locate(frame, stmt.buffer, stmt.indices), stored, stmt.reduce)


def _prefetch(frame: Frame, stmt: Prefetch) -> None:
    where = emit_memory.pointer(frame, locate(frame, stmt.buffer, stmt.indices))
    frame.b.module.declare("llvm.prefetch.p0", "void", "ptr, i32 immarg, i32 immarg, i32 immarg")
    frame.b.void(f"call void @llvm.prefetch.p0(ptr {where}, i32 {int(stmt.write)}, i32 {3 if stmt.near else 2}, i32 1)")


def _allocate(frame: Frame, buffer: Buffer) -> None:
    if buffer.scope is Scope.REGISTER:
        frame.pointers[buffer] = _stack_array(frame, buffer)
        return
    if buffer.scope is Scope.SHARED:
        raise CompileError(f"kernel {frame.kernel!r} stores {buffer.name!r} in shared memory, which only a GPU has")
    offset = index(frame, wrap(frame.plan.offsets[buffer]))
    base = "%workspace"
    if buffer in frame.plan.private and frame.in_parallel:
        base = "%private"
    elif buffer in frame.plan.private:  # a parallel loop that is not worth handing out runs as thread 0
        offset = linear.add(offset, index(frame, wrap(frame.plan.workspace.shared)))
    shift = emit_index.to_value(frame.b, offset)
    frame.pointers[buffer] = base if shift.ref == "0" else frame.b.pure(f"getelementptr i8, ptr {base}, {shift}")


def _stack_array(frame: Frame, buffer: Buffer) -> str:
    count = 1
    for dim in buffer.shape:
        size = index(frame, wrap(dim))
        if not size.is_constant:
            raise CompileError(f"buffer {buffer.name!r} of kernel {frame.kernel!r} must have a constant shape")
        count *= size.constant
    kind = memory_type(buffer.dtype)
    return frame.b.alloca(f"[{count} x {kind}]", ALIGNMENT)


def _if(frame: Frame, stmt: If) -> None:
    condition = value(frame, stmt.condition)
    if condition.ref in ("true", "false"):
        chosen = stmt.body if condition.ref == "true" else stmt.orelse
        if chosen is not None:
            statement(frame, chosen)
    elif condition.lanes:
        _masked_if(frame, stmt, condition)
    else:
        _branch(frame, stmt, condition)


def _masked_if(frame: Frame, stmt: If, condition: Value) -> None:
    with frame.masked(condition):
        statement(frame, stmt.body)
    if stmt.orelse is not None:
        with frame.masked(ops.unary(frame.b, "not", condition)):
            statement(frame, stmt.orelse)


def _branch(frame: Frame, stmt: If, condition: Value) -> None:
    b = frame.b
    then, done = b.new_label("then"), b.new_label("endif")
    other = done if stmt.orelse is None else b.new_label("else")
    b.branch(condition.ref, then, other)
    for label, body in ((then, stmt.body), (other, stmt.orelse)):
        if body is not None:
            b.start(label)
            with frame.region():
                statement(frame, body)
            b.jump(done)
    b.start(done)


def _for(frame: Frame, loop: For) -> None:
    start, stop = index(frame, loop.start), index(frame, loop.stop)
    extent = linear.add(stop, start, -1)
    count = extent.constant if extent.is_constant else None
    if count is not None and count <= 0:
        return
    if count == 1:
        with frame.bound(loop.var, start):
            statement(frame, loop.body)
    elif loop.kind is LoopKind.DOT and count is not None and emit_dot.dot(frame, loop, start, count):
        return
    elif loop.kind in (LoopKind.UNROLL, LoopKind.DOT) and count is not None:
        accumulates = _accumulates(loop.body, loop.var)
        for i in range(count):
            if i and accumulates:
                frame.b.keep_order()
            with frame.bound(loop.var, linear.add(start, linear.constant(i))):
                statement(frame, loop.body)
    elif loop.kind is LoopKind.VECTOR and count is not None and not frame.lanes and _vectorises(loop):
        _vector(frame, loop, start, count)
    elif loop.kind is LoopKind.PARALLEL and not frame.in_parallel and not frame.lanes:
        emit_parallel.parallel(frame, loop, start, extent, statement)
    else:
        _serial(frame, loop, start, stop)


def _accumulates(stmt: Stmt, var: Var) -> bool:
    """Whether iterations over ``var`` add to the same elements, as the steps of a register tile do."""
    if isinstance(stmt, Store):
        return bool(stmt.reduce) and not any(var in free_vars(i) for i in stmt.indices)
    return any(_accumulates(s, var) for s in inner(stmt))


def _serial(frame: Frame, loop: For, start: Linear, stop: Linear) -> None:
    def iteration(i: Linear) -> None:
        with frame.bound(loop.var, i):
            statement(frame, loop.body)

    counted_loop(frame, start, stop, iteration)


def _vectorises(loop: For) -> bool:
    """Whether the body has one control flow for all lanes, no loop that is itself special, and no private memory."""
    return all(_uniform(child, frozenset({loop.var})) for child in inner(loop))


def _uniform(stmt: Stmt, varying: frozenset[Var]) -> bool:
    match stmt:
        case Alloc():
            return False
        case Let() if free_vars(stmt.value) & varying:
            varying = varying | {stmt.var}
        case For():
            if stmt.kind in (LoopKind.VECTOR, LoopKind.PARALLEL):
                return False
            if (free_vars(stmt.start) | free_vars(stmt.stop)) & varying:
                return False
    return all(_uniform(child, varying) for child in inner(stmt))


def _vector(frame: Frame, loop: For, start: Linear, count: int) -> None:
    """Execute ``count`` lanes in pieces of powers of two, which LLVM then splits or pads least."""
    largest = _VECTORS_AT_ONCE * frame.b.module.target.lanes(4)
    done = 0
    if count > _PIECES_UNROLLED * largest:
        done = count // largest * largest
        _vector_pieces(frame, loop, start, done, largest)
    while done < count:
        lanes = min(largest, 1 << ((count - done).bit_length() - 1))
        _piece(frame, loop, linear.add(start, linear.constant(done)), lanes)
        done += lanes


def _vector_pieces(frame: Frame, loop: For, start: Linear, count: int, lanes: int) -> None:
    """A serial loop over vectors, for more lanes than are worth unrolling."""

    def iteration(i: Linear) -> None:
        _piece(frame, loop, linear.add(start, linear.scale(i, lanes)), lanes)

    counted_loop(frame, linear.constant(0), linear.constant(count // lanes), iteration)


def _piece(frame: Frame, loop: For, start: Linear, lanes: int) -> None:
    if lanes == 1:
        with frame.bound(loop.var, start):
            statement(frame, loop.body)
        return
    lane = linear.of_atom(emit_index.lane_atom(frame.b, lanes))
    frame.lanes = lanes
    with frame.bound(loop.var, linear.add(start, lane)):
        statement(frame, loop.body)
    frame.lanes = 0
