"""Vector loops: lane by lane in the text, but what lies side by side in memory is loaded and stored at once.

A load or store is wide when neighbouring lanes touch neighbouring elements and the first lane's position is provably a
multiple of how many are moved at once (all buffers begin at multiples of 16 bytes). It goes through a small array,
which NVRTC keeps in registers. As in the vectors of a CPU, all lanes execute a statement before any executes the next
one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

from polycomp.codegen.cuda import code
from polycomp.codegen.cuda.code import PRODUCT
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
from polycomp.codegen.cuda.expressions import offset_of, position, value
from polycomp.codegen.cuda.frame import Frame
from polycomp.dtypes import DType
from polycomp.expr import (
    CheckedIndex,
    Compare,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    binary,
    const,
    free_vars,
    is_uniform,
    linear_in,
    loads,
    simplify,
    substitute,
    terms,
    transform,
)
from polycomp.expr import walk as walk_expression
from polycomp.loops import Block, Buffer, For, If, Let, LoopKind, Prefetch, Scope, Stmt, Store
from polycomp.loops.guards import conjuncts, nonnegative_form
from polycomp.loops.visit import map_expressions, replace_vars, walk

WIDEST = 16
"""Bytes that a thread moves at once."""

_LEAST_AHEAD = 4  # bytes of a copy that is waited for later

_PLAIN_LOOPS = (LoopKind.SERIAL, LoopKind.PARALLEL, LoopKind.UNROLL, LoopKind.DOT)

Emit = Callable[[Frame, Stmt], None]


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """The lanes of a vector loop, from 0, and what emits a statement of one of them."""

    var: Var
    count: int
    emit: Emit


@dataclasses.dataclass(frozen=True)
class _Access:
    """Elements side by side: the first lane's is at ``offset``, ``at_once`` of them are moved in one piece."""

    buffer: Buffer
    offset: Expr
    at_once: int


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How a store is executed in all lanes: its wide loads, each with the conditions under which to load, and whether
    the store itself is wide."""

    loads: dict[Load, tuple[_Access, tuple[Expr, ...]]]
    target: _Access | None

    @property
    def is_wide(self) -> bool:
        return bool(self.loads) or self.target is not None


def vector(frame: Frame, loop: For, emit: Emit) -> None:
    """Emit a vector loop with constant bounds."""
    count, body = constant_extent(loop), loop.body
    assert count is not None
    if loop.start != Const(0, DType.INT64):
        body = replace_vars(body, {loop.var: simplify(loop.var + loop.start)})
    lanes = _Lanes(loop.var, count, emit)
    _statement(frame, map_expressions(body, functools.partial(_settled, frame, lanes)), lanes)


def _settled(frame: Frame, lanes: _Lanes, e: Expr) -> Expr:
    """``e`` with conditions that are the same in all lanes in words of the first lane."""

    def settle(part: Expr) -> Expr | None:
        known = substitute(part, frame.values)
        if not isinstance(known, Compare) or not is_uniform(known, lanes.var, lanes.count, frame.ranges):
            return None
        return substitute(part, {lanes.var: const(0)})

    return transform(e, settle)


def _statement(frame: Frame, stmt: Stmt, lanes: _Lanes) -> None:
    """``stmt`` in all lanes: control flow that is the same for all of them stays around the lanes."""
    match stmt:
        case Prefetch():
            pass
        case Block():
            for child in stmt.stmts:
                _statement(frame, child, lanes)
        case Store():
            _store(frame, stmt, lanes)
        case If():
            _if(frame, stmt, lanes)
        case For() if stmt.kind in _PLAIN_LOOPS and lanes.var not in free_vars(stmt.start) | free_vars(stmt.stop):
            if constant_extent(stmt) != 0:
                with counted(frame, stmt):
                    _statement(frame, stmt.body, lanes)
        case Let() if lanes.var not in free_vars(stmt.value):
            with named(frame, stmt):
                _statement(frame, stmt.body, lanes)
        case Let() if stmt.var.dtype is DType.INT64 and not may_fail(stmt.value):
            _statement(frame, replace_vars(stmt.body, {stmt.var: stmt.value}), lanes)
        case _:
            _one_by_one(frame, stmt, lanes)


def _one_by_one(frame: Frame, stmt: Stmt, lanes: _Lanes) -> None:
    with counted(frame, _loop(lanes, stmt)):
        lanes.emit(frame, stmt)


def _loop(lanes: _Lanes, body: Stmt) -> For:
    return For(lanes.var, const(0), const(lanes.count), LoopKind.UNROLL, body)


def _if(frame: Frame, stmt: If, lanes: _Lanes) -> None:
    if lanes.var not in free_vars(stmt.condition):
        with frame.braces(f"if ({value(frame, stmt.condition).text})"):
            _statement(frame, stmt.body, lanes)
        if stmt.orelse is not None:
            with frame.braces("else"):
                _statement(frame, stmt.orelse, lanes)
        return
    everywhere = _in_all_lanes(stmt.condition, lanes) if stmt.orelse is None else None
    if everywhere is None or not _has_wide(frame, stmt.body, lanes):
        _one_by_one(frame, stmt, lanes)
        return
    with frame.braces(f"if ({value(frame, everywhere).text})"):
        _statement(frame, stmt.body, lanes)
    with frame.braces("else"):
        _one_by_one(frame, stmt, lanes)


def _in_all_lanes(condition: Expr, lanes: _Lanes) -> Expr | None:
    """That ``condition``, of which each part is linear in the lane's number, holds in all lanes."""
    result: Expr = const(True, DType.BOOL)
    for part in conjuncts(condition):
        excess = nonnegative_form(part)
        linear = None if excess is None else linear_in(excess, lanes.var)
        if linear is None or loads(part):
            return None
        last = 0 if linear[0] > 0 else lanes.count - 1
        part = substitute(part, {lanes.var: const(last)})
        result = part if isinstance(result, Const) else binary("and", result, part)
    return result


def _has_wide(frame: Frame, stmt: Stmt, lanes: _Lanes) -> bool:
    return any(isinstance(s, Store) and _plan(frame, s, lanes).is_wide for s in walk(stmt))


def _plan(frame: Frame, store: Store, lanes: _Lanes) -> _Plan:
    found: dict[Load, tuple[_Access, tuple[Expr, ...]]] = {}
    guards: dict[Load, set[tuple[Expr, ...]]] = {}
    for load, conditions in _evaluated(store.value, (), lanes):
        guards.setdefault(load, set()).add(conditions)
    for load, under in guards.items():
        access = _access(frame, load.source, load.indices, lanes)
        if access is not None and (len(under) == 1 or () in under):
            found[load] = access, (() if () in under else next(iter(under)))
    return _Plan(found, _access(frame, store.buffer, store.indices, lanes))


def _evaluated(e: Expr, under: tuple[Expr, ...], lanes: _Lanes) -> Iterator[tuple[Load, tuple[Expr, ...]]]:
    """The loads in ``e``, each with the conditions under which it is executed, where all lanes agree on these."""
    if isinstance(e, Load):
        yield e, under
    if not isinstance(e, Select):
        for operand in e.operands:
            yield from _evaluated(operand, under, lanes)
        return
    yield from _evaluated(e.condition, under, lanes)
    if lanes.var in free_vars(e.condition) or any(isinstance(p, CheckedIndex) for p in walk_expression(e.condition)):
        return
    yield from _evaluated(e.on_true, (*under, e.condition), lanes)
    yield from _evaluated(e.on_false, (*under, Unary("not", e.condition)), lanes)


def _access(frame: Frame, buffer: Buffer, indices: tuple[Expr, ...], lanes: _Lanes) -> _Access | None:
    """The wide access, when it is one."""
    if buffer.scope is Scope.REGISTER or not indices:
        return None
    ranges = {**frame.ranges, lanes.var: (0, lanes.count - 1)}
    linear = linear_in(offset_of(buffer, indices, ranges), lanes.var)
    if linear is None or linear[0] != 1:
        return None
    known = simplify(substitute(linear[1], frame.values), ranges)
    multiple = math.gcd(lanes.count, *(coefficient for coefficient, _ in terms(known)))
    at_once = min(multiple & -multiple, WIDEST // buffer.dtype.bytes)
    return _Access(buffer, linear[1], at_once) if at_once > 1 else None


def _store(frame: Frame, store: Store, lanes: _Lanes) -> None:
    plan = _plan(frame, store, lanes)
    if not plan.is_wide:
        _one_by_one(frame, store, lanes)
        return
    tell_source(frame, store)
    with by_one_thread(frame, store.buffer):
        source = plan.loads.get(store.value) if isinstance(store.value, Load) else None
        if store.ahead and _copy_ahead(frame, store, plan, lanes):
            return
        if not store.reduce and plan.target is not None and source is not None and _alike(plan.target, source[0]):
            _move(frame, lanes, plan.target, plan.target, source[0])
        else:
            _through_arrays(frame, store, plan, lanes)


def _copy_ahead(frame: Frame, store: Store, plan: _Plan, lanes: _Lanes) -> bool:
    """Emit a store of elements as they are in global memory, or of zeros where conditions do not hold, as one that is
    waited for later; whether it is one."""
    element = store.value
    while isinstance(element, Select) and element.on_false == const(0, element.dtype):
        element = element.on_true
    found = plan.loads.get(element) if isinstance(element, Load) else None
    if found is None or plan.target is None or not _alike(plan.target, found[0]):
        return False
    access, guards = found
    size = access.at_once * access.buffer.dtype.bytes
    if access.at_once != lanes.count or size < _LEAST_AHEAD or access.buffer.scope is Scope.SHARED:
        return False
    holds = code.conjunction([value(frame, guard) for guard in guards]).text if guards else "true"
    frame.line(f"pc_copy_ahead<{size}>({_address(frame, plan.target)}, {_address(frame, access)}, {holds});")
    return True


def _alike(a: _Access, b: _Access) -> bool:
    return a.at_once == b.at_once and a.buffer.dtype is b.buffer.dtype


def _through_arrays(frame: Frame, store: Store, plan: _Plan, lanes: _Lanes) -> None:
    """Load into arrays, compute lane by lane, store from an array."""
    arrays: dict[Expr, Expr] = {}
    for load, (access, guards) in plan.loads.items():
        array = _array(frame, access, lanes)
        arrays[load] = Load(array.buffer, (lanes.var,))
        if guards:
            conditions = [value(frame, guard) for guard in guards]
            with frame.braces(f"if ({code.conjunction(conditions).text})"):
                _move(frame, lanes, access, array, access)
        else:
            _move(frame, lanes, access, array, access)
    changed = dataclasses.replace(store, value=transform(store.value, arrays.get))
    if plan.target is None:
        with counted(frame, _loop(lanes, changed)):
            plain_store(frame, changed)
        return
    result = _array(frame, plan.target, lanes)
    if store.reduce:
        _move(frame, lanes, plan.target, result, plan.target)
    changed = dataclasses.replace(changed, buffer=result.buffer, indices=(lanes.var,))
    with counted(frame, _loop(lanes, changed)):
        plain_store(frame, changed)
    _move(frame, lanes, plan.target, plan.target, result)


def _array(frame: Frame, access: _Access, lanes: _Lanes) -> _Access:
    """An array for the lanes' elements, which begins with the first lane's."""
    buffer = Buffer(f"{access.buffer.name}_lanes", access.buffer.dtype, (lanes.count,), Scope.REGISTER)
    declare_array(frame, buffer, aligned=True)
    return _Access(buffer, const(0), access.at_once)


def _move(frame: Frame, lanes: _Lanes, pieces: _Access, to: _Access, source: _Access) -> None:
    """Copy the lanes' elements in ``pieces``."""
    function = f"op_copy{pieces.at_once * pieces.buffer.dtype.bytes}"
    if pieces.at_once == lanes.count:
        frame.line(f"{function}({_address(frame, to)}, {_address(frame, source)});")
        return
    first = frame.names.fresh("first")
    frame.line("#pragma unroll")
    with frame.braces(f"for (int {first} = 0; {first} < {lanes.count}; {first} += {pieces.at_once})"):
        frame.line(f"{function}({_address(frame, to)} + {first}, {_address(frame, source)} + {first});")
    frame.names.release(first)


def _address(frame: Frame, access: _Access) -> str:
    place = frame.place(access.buffer)
    if access.offset == Const(0, DType.INT64):
        return place
    return f"{place} + {position(frame, access.buffer, access.offset).within(PRODUCT)}"
