"""Horizontal reductions: threads that each have a part of a sum (or a product, an extremum...) exchange their parts.

Groups of up to a warp's threads do it by shuffles, larger ones go through a small shared array. All threads of the
block take part, and those in which a guard does not hold bring the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from polycomp.codegen.cuda import code, operations
from polycomp.codegen.cuda.code import BOOL, INT, Code, call, converted, infix
from polycomp.codegen.cuda.control import declare_array, plain_store, tell_source
from polycomp.codegen.cuda.expressions import load, value
from polycomp.codegen.cuda.frame import Frame, Predicate
from polycomp.codegen.cuda.groups import Group, sole_store
from polycomp.dtypes import DType
from polycomp.expr import Expr, Load, cast, free_vars
from polycomp.loops import Alloc, Barrier, Block, Buffer, For, If, Let, Scope, Stmt, Store
from polycomp.loops.visit import block, inner, walk
from polycomp.te import reduce_identity

_WARP = 32
_FEW = 4  # warps whose parts each thread reads by itself

Emit = Callable[[Frame, Stmt], None]


def is_one_reduction(frame: Frame, stmt: Stmt) -> bool:
    """Whether ``stmt`` is a horizontal reduction with loops around it that only say what is reduced: then each thread
    first reduces its own part over all of them."""
    store = sole_store(stmt)
    if store is None or frame.groups.of(store) is None:
        return False
    inside = {s.var for s in walk(stmt) if isinstance(s, For | Let)}
    made = {s.buffer for s in walk(stmt) if isinstance(s, Alloc)}
    return not made and not any(free_vars(i) & inside for i in store.indices)


def reduce(frame: Frame, stmt: Stmt, emit: Emit) -> None:
    """Emit a statement that :func:`is_one_reduction`."""
    store = sole_store(stmt)
    group = None if store is None else frame.groups.of(store)
    assert store is not None and group is not None
    if any(isinstance(s, Barrier) for s in walk(stmt)):
        frame.line("__syncthreads();")
    tell_source(frame, store)
    dtype = DType.FLOAT32 if store.buffer.dtype.is_half else store.buffer.dtype
    part = Buffer("partial", dtype, (), Scope.REGISTER)
    identity = value(frame, reduce_identity(store.reduce, dtype))
    declare_array(frame, part, initial=f" = {identity.text}")
    own = Store(part, (), cast(dtype, store.value), store.reduce)
    with frame.guarded():
        emit(frame, _with_store(stmt, own))
    to_all = group.is_all and store.buffer.scope is Scope.REGISTER
    _combine(frame, part, store.reduce, group, to_all)
    update = dataclasses.replace(store, value=cast(store.buffer.dtype, Load(part, ())), source="")
    _update(frame, stmt, update, group)


def _with_store(stmt: Stmt, store: Store) -> Stmt:
    """``stmt`` with ``store`` in place of its own, and without barriers."""
    match stmt:
        case Store():
            return store
        case Block():
            return block([_with_store(s, store) for s in stmt.stmts if not isinstance(s, Barrier)])
        case If():
            orelse = None if stmt.orelse is None else _with_store(stmt.orelse, store)
            return If(stmt.condition, _with_store(stmt.body, store), orelse)
        case For() | Let():
            return dataclasses.replace(stmt, body=_with_store(stmt.body, store))
    return stmt


def _update(frame: Frame, stmt: Stmt, update: Store, group: Group) -> None:
    """Add the total to the element: each thread to its own copy in registers, one thread of the group in memory."""
    if update.buffer.scope is Scope.REGISTER:
        plain_store(frame, update)
        return
    needed = [p.condition for p in frame.predicates if not p.roots & group.over]
    needed += [value(frame, e) for e in _conditions_on_element(stmt) if not frame.depends_on(e) & group.over]
    number = "threadIdx.x" if group.is_all else f"threadIdx.x % {group.reach}"
    needed.append(infix("==", Code(number, "unsigned", code.PRODUCT), Code("0", INT), BOOL))
    with frame.under(tuple(Predicate(condition, frozenset()) for condition in needed)), frame.guarded():
        plain_store(frame, update)


def _conditions_on_element(stmt: Stmt) -> list[Expr]:
    """Conditions inside of ``stmt`` that do not depend on what is reduced over."""
    inside = {s.var for s in walk(stmt) if isinstance(s, For | Let)}
    found: list[Expr] = []
    while True:
        if isinstance(stmt, If) and stmt.orelse is None and not free_vars(stmt.condition) & inside:
            found.append(stmt.condition)
        below = [s for s in inner(stmt) if not isinstance(s, Barrier)]
        if len(below) != 1:
            return found
        stmt = below[0]


def _combine(frame: Frame, part: Buffer, op: str, group: Group, to_all: bool) -> None:
    """``part`` becomes the total of the group in each of its threads, or in all of the block."""
    reach = group.reach
    is_power = reach & (reach - 1) == 0
    beyond = to_all and frame.block > reach
    if is_power and reach <= _WARP and not beyond:
        _shuffle(frame, part, op, reach // 2, group.alike)
    elif group.alike == 1 and (reach % _WARP == 0 or (is_power and reach < _WARP)):
        _over_warps(frame, part, op, group, beyond)
    else:
        _over_threads(frame, part, op, group, beyond)


def _step(frame: Frame, part: Buffer, op: str, other: Code) -> str:
    """The statement that combines ``part`` with another one, a value as it is in memory."""
    if part.dtype is DType.BOOL:
        other = infix("!=", other, Code("0", INT), BOOL)
    combined = operations.reduction(op, part.dtype, load(frame, Load(part, ())), other)
    return f"{frame.place(part)} = {combined.text};"


def _shuffle(frame: Frame, part: Buffer, op: str, first: int, last: int) -> None:
    """Combine with the lanes whose numbers differ in one bit, from ``first`` down to ``last``."""
    if first < last:
        return
    frame.line("#pragma unroll")
    with frame.braces(f"for (int step = {first}; step >= {last}; step /= 2)"):
        kind = code.memory_type(part.dtype)
        mine = Code(frame.place(part), kind)
        narrow = part.dtype.bits < 32
        other = call("pc_shuffle_xor", converted(INT, mine) if narrow else mine, Code("step", INT), kind=kind)
        frame.line(_step(frame, part, op, converted(kind, Code(other.text, INT)) if narrow else other))


def _scratch(frame: Frame, dtype: DType, size: int) -> str:
    """A shared array through which values of ``dtype`` are exchanged."""
    if (dtype, size) not in frame.scratch:
        frame.scratch[dtype, size] = name = frame.names.fresh(f"exchanged_{dtype.value}")
        frame.header.append(f"    __shared__ {code.memory_type(dtype)} {name}[{size}];")
    return frame.scratch[dtype, size]


def _rounded_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _over_warps(frame: Frame, part: Buffer, op: str, group: Group, beyond: bool) -> None:
    """Combine within warps, then the warps' totals. ``beyond`` says that threads outside of the group want it too."""
    warps = max(1, group.count // _WARP)
    shared = _scratch(frame, part.dtype, _rounded_up(-(-frame.block // _WARP), warps))
    _shuffle(frame, part, op, min(group.count, _WARP) // 2, 1)
    with frame.braces(f"if (threadIdx.x % {_WARP} == 0)"):
        frame.line(f"{shared}[threadIdx.x / {_WARP}] = {frame.place(part)};")
    frame.line("__syncthreads();")
    base = "" if beyond or group.is_all else f"threadIdx.x / {group.count} * {warps}"
    if warps > _FEW and warps & (warps - 1) == 0:
        position = f"threadIdx.x % {warps}"
        frame.line(f"{frame.place(part)} = {shared}[{f'{base} + {position}' if base else position}];")
        _shuffle(frame, part, op, warps // 2, 1)
    else:
        _read_all(frame, part, op, shared, base, warps, 1)
    frame.line("__syncthreads();")


def _over_threads(frame: Frame, part: Buffer, op: str, group: Group, beyond: bool) -> None:
    """Each thread combines all parts of its group."""
    reach, alike = group.reach, group.alike
    shared = _scratch(frame, part.dtype, _rounded_up(frame.block, reach))
    frame.line(f"{shared}[threadIdx.x] = {frame.place(part)};")
    frame.line("__syncthreads();")
    base = ""
    if not beyond and not group.is_all:
        base = f"threadIdx.x / {reach} * {reach}"
    if alike > 1:
        base = f"{base} + threadIdx.x % {alike}" if base else f"threadIdx.x % {alike}"
    _read_all(frame, part, op, shared, base, group.count, alike)
    frame.line("__syncthreads();")


def _read_all(frame: Frame, part: Buffer, op: str, shared: str, base: str, count: int, stride: int) -> None:
    """``part`` as the total of every ``stride``-th of ``count`` elements of the shared array."""
    frame.line(f"{frame.place(part)} = {shared}[{base or '0'}];")
    if count == 1:
        return
    frame.line("#pragma unroll")
    with frame.braces(f"for (int step = 1; step < {count}; ++step)"):
        position = "step" if stride == 1 else f"step * {stride}"
        other = Code(f"{shared}[{f'{base} + {position}' if base else position}]", code.memory_type(part.dtype))
        frame.line(_step(frame, part, op, other))
