"""Statements of a loop nest as CUDA C."""

from __future__ import annotations

import math

from polycomp.codegen.cuda import code
from polycomp.codegen.cuda.code import BOOL, INT, LONG, Code, infix
from polycomp.codegen.cuda.control import (
    by_one_thread,
    constant_extent,
    counted,
    declare_array,
    may_fail,
    named,
    plain_store,
    tell_source,
)
from polycomp.codegen.cuda.expressions import index, value
from polycomp.codegen.cuda.frame import Frame, Predicate, Thread
from polycomp.codegen.cuda.groups import extent_of, shape_of
from polycomp.codegen.cuda.reductions import is_one_reduction, reduce
from polycomp.codegen.cuda.shared import alignment_of, element_count
from polycomp.codegen.cuda.spans import Span, span
from polycomp.codegen.cuda.tensor import is_product, product
from polycomp.codegen.cuda.vectors import vector
from polycomp.expr import Const, Expr, Var, const, simplify, substitute
from polycomp.loops import (
    Alloc,
    Await,
    Barrier,
    Block,
    Buffer,
    Commit,
    For,
    If,
    Let,
    LoopKind,
    Prefetch,
    Scope,
    Stmt,
    Store,
)

_MOST_BLOCKS = 2**31 - 1


def statement(frame: Frame, stmt: Stmt) -> None:
    """Emit ``stmt`` at the current place."""
    if frame.predicates and not frame.groups.exchanges(stmt):
        with frame.guarded():
            statement(frame, stmt)
        return
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
            with named(frame, stmt):
                statement(frame, stmt.body)
        case Alloc():
            _allocate(frame, stmt.buffer)
            statement(frame, stmt.body)
        case Barrier():
            if frame.shared.is_swizzled:
                frame.line("pc_show_stores();")
            frame.line("__syncthreads();")
        case Commit():
            frame.line("pc_commit_copies();")
        case Await():
            frame.line(f"pc_await_copies<{stmt.pending}>();")
        case Prefetch():
            pass
        case _:
            raise frame.error(f"holds a {type(stmt).__name__}, which is no statement")


def _store(frame: Frame, store: Store) -> None:
    if frame.groups.of(store) is not None:
        reduce(frame, store, statement)
        return
    tell_source(frame, store)
    with by_one_thread(frame, store.buffer):
        plain_store(frame, store)


def _for(frame: Frame, loop: For) -> None:
    if constant_extent(loop) == 0:
        return
    if frame.groups.exchanges(loop):
        if is_one_reduction(frame, loop):
            reduce(frame, loop, statement)
            return
        if loop.kind is not LoopKind.THREAD and frame.varies(frame.depends_on(loop.start, loop.stop)):
            raise frame.error(
                f"has threads wait for each other in the loop {loop.var.name!r}, which each of them runs differently"
            )
    if loop.kind in (LoopKind.UNROLL, LoopKind.TENSOR) and is_product(loop):
        product(frame, loop)
        return
    match loop.kind:
        case LoopKind.BLOCK:
            _over_blocks(frame, loop)
        case LoopKind.THREAD:
            _over_threads(frame, loop)
        case LoopKind.VECTOR if constant_extent(loop) is not None and not frame.groups.exchanges(loop):
            vector(frame, loop, statement)
        case _:
            with counted(frame, loop):
                statement(frame, loop.body)


def _over_blocks(frame: Frame, loop: For) -> None:
    """The variable of a loop over blocks, by the block's number: the innermost loop counts fastest."""
    extent, *inside = frame.extents
    start = simplify(substitute(loop.start, frame.values), frame.ranges)
    (low, start_high), high = span(frame, start).interval, span(frame, extent).high
    most = _MOST_BLOCKS if high is None else min(high, _MOST_BLOCKS)
    interval = (low, None if start_high is None else start_high + max(most - 1, 0))
    kind = INT if Span(*interval, True).fits(32) else LONG
    number = Code(_block_number(frame, extent, tuple(inside)), kind)
    if start != const(0):
        number = infix("+", Code(f"({kind})({number.text})", kind), index(frame, start), kind)
    name = frame.declare(loop.var.name, kind, number.text)
    outer = frame.extents, frame.is_inside_blocks
    frame.extents, frame.is_inside_blocks = tuple(inside), True
    with frame.bound(loop.var, Code(name, kind), interval, frozenset([loop.var])):
        statement(frame, loop.body)
    frame.extents, frame.is_inside_blocks = outer


def _block_number(frame: Frame, extent: Expr, inside: tuple[Expr, ...]) -> str:
    if extent == const(1):
        return "0"
    number, step = Code("blockIdx.x", "unsigned"), simplify(math.prod(inside, start=const(1)), frame.ranges)
    if step != const(1):
        number = infix("/", number, index(frame, step), "unsigned")
    if frame.is_inside_blocks:
        number = infix("%", number, index(frame, extent), "unsigned")
    return number.text


def _over_threads(frame: Frame, loop: For) -> None:
    """The variable of a loop over threads, by the thread's number; threads beyond the loop's extent are left out."""
    shape, depth = frame.shape or shape_of(loop, frame.kernel), len(frame.threads)
    extent, start = extent_of(loop, frame.kernel), index(frame, loop.start)
    first = int(loop.start.value) if isinstance(loop.start, Const) else 0
    name = frame.declare(loop.var.name, INT, _thread_number(shape, depth, start if first else None))
    variable = Code(name, INT)
    predicates = list(frame.predicates)
    if depth == 0 and math.prod(shape) < frame.block:
        limit = code.integer(math.prod(shape))
        predicates.append(Predicate(infix("<", Code("threadIdx.x", "unsigned"), limit, BOOL), frozenset()))
    if extent < shape[depth]:
        limit = code.integer(first + extent)
        predicates.append(Predicate(infix("<", variable, limit, BOOL), frozenset([loop.var])))
    outer = frame.threads, frame.shape
    frame.threads, frame.shape = (*frame.threads, Thread(loop.var, depth)), shape
    with (
        frame.bound(loop.var, variable, (first, first + extent - 1), frozenset([loop.var])),
        frame.under(tuple(predicates)),
    ):
        statement(frame, loop.body)
    frame.threads, frame.shape = outer


def _thread_number(shape: tuple[int, ...], depth: int, start: Code | None) -> str:
    number, step = Code("threadIdx.x", "unsigned"), math.prod(shape[depth + 1 :])
    if step > 1:
        number = infix("/", number, code.integer(step), "unsigned")
    if math.prod(shape[:depth]) > 1:
        number = infix("%", number, code.integer(shape[depth]), "unsigned")
    if shape[depth] == 1:
        number = Code("0", INT)
    return number.text if start is None else infix("+", Code(f"(int)({number.text})", INT), start, INT).text


def _if(frame: Frame, stmt: If) -> None:
    roots = frame.depends_on(stmt.condition)
    if frame.groups.exchanges(stmt) and frame.varies(roots):
        _predicated(frame, stmt, roots)
        return
    with frame.braces(f"if ({value(frame, stmt.condition).text})"):
        statement(frame, stmt.body)
    if stmt.orelse is not None:
        with frame.braces("else"):
            statement(frame, stmt.orelse)


def _predicated(frame: Frame, stmt: If, roots: frozenset[Var]) -> None:
    """A condition that differs between threads which all have to come to what is inside of it."""
    condition = value(frame, stmt.condition)
    if frame.predicates and may_fail(stmt.condition):
        condition = code.conjunction([*(p.condition for p in frame.predicates), condition])
        roots = roots.union(*(p.roots for p in frame.predicates))
    name = frame.names.fresh("holds")
    frame.line(f"const bool {name} = {condition.text};")
    holds = Code(name, BOOL)
    with frame.under((*frame.predicates, Predicate(holds, roots))):
        statement(frame, stmt.body)
    if stmt.orelse is not None:
        with frame.under((*frame.predicates, Predicate(code.negated(holds), roots))):
            statement(frame, stmt.orelse)


def _allocate(frame: Frame, buffer: Buffer) -> None:
    match buffer.scope:
        case Scope.REGISTER:
            declare_array(frame, buffer)
        case Scope.SHARED:
            _declare_shared(frame, buffer)
        case _ if frame.is_inside_blocks or frame.threads:
            raise frame.error(f"allocates the {buffer.scope.value} buffer {buffer.name!r} inside of a block")


def _declare_shared(frame: Frame, buffer: Buffer) -> None:
    if frame.threads:
        raise frame.error(f"allocates shared memory {buffer.name!r} inside of a loop over threads")
    kind = code.memory_type(buffer.dtype)
    frame.places[buffer] = name = frame.names.fresh(buffer.name)
    offset = frame.shared.offsets.get(buffer)
    if offset is not None:
        place = f"shared_memory + {offset}" if offset else "shared_memory"
        frame.line(f"{kind}* const {name} = ({kind}*)({place});")
    else:
        count = max(element_count(buffer, frame.kernel), 1)
        frame.line(f"__shared__ __align__({alignment_of(buffer)}) {kind} {name}[{count}];")
