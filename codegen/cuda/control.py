"""What statements are put into: loops, names of values, arrays, and what only one thread of several executes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

from polycomp.codegen.cuda import code, operations
from polycomp.codegen.cuda.code import INT, LONG, Code
from polycomp.codegen.cuda.expressions import assigned, element_of, index, is_scalar, load, stored, value
from polycomp.codegen.cuda.frame import Frame
from polycomp.codegen.cuda.names import comment
from polycomp.codegen.cuda.shared import element_count
from polycomp.codegen.cuda.spans import Span, span
from polycomp.dtypes import DType
from polycomp.expr import Binary, CheckedIndex, Const, Expr, Interval, Load, Var, const, free_vars, transform, walk
from polycomp.loops import Buffer, For, Let, Scope, Stmt, Store
from polycomp.loops.visit import expressions, for_range, inner

_MOST_UNROLLED = 256  # iterations of a loop that is unrolled only for the arrays in registers that it indexes


def constant_extent(loop: For) -> int | None:
    """The number of iterations, when it is known."""
    if isinstance(loop.start, Const) and isinstance(loop.stop, Const):
        return max(int(loop.stop.value) - int(loop.start.value), 0)
    return None


@contextlib.contextmanager
def counted(frame: Frame, loop: For) -> Iterator[None]:
    """A loop around what is emitted within. One that indexes an array in registers is unrolled."""
    extent, (low, high) = constant_extent(loop), for_range(loop, frame.ranges)
    roots = frame.depends_on(loop.start, loop.stop) | {loop.var}
    if extent == 1:
        with frame.bound(loop.var, index(frame, loop.start), (low, high), roots - {loop.var}):
            yield
        return
    start, stop = index(frame, loop.start), index(frame, loop.stop)
    kind = INT if Span(low, None if high is None else high + 1, True).fits(32) else LONG
    name = frame.names.fresh(loop.var.name)
    factor = _unrolled(loop, extent)
    if factor:
        frame.line("#pragma unroll" if factor == extent else f"#pragma unroll {factor}")
    head = f"for ({kind} {name} = {start.text}; {name} < {stop.within(code.SHIFT)}; ++{name})"
    with frame.bound(loop.var, Code(name, kind), (low, high), roots), frame.braces(head):
        yield
    frame.names.release(name)


@contextlib.contextmanager
def counted_all(frame: Frame, loops: Iterable[For]) -> Iterator[None]:
    """Loops around one another, the first outermost."""
    with contextlib.ExitStack() as stack:
        for loop in loops:
            stack.enter_context(counted(frame, loop))
        yield


def _unrolled(loop: For, extent: int | None) -> int:
    """How many iterations are unrolled: all (``extent``), some, or none (0)."""
    if extent is None:
        return 0
    if loop.kind.is_expanded:
        return extent
    used = list(_indices_of_registers(loop.body, frozenset([loop.var])))
    if not used or extent <= _MOST_UNROLLED:
        return extent if used else 0
    folds = {_fold(e, loop.var) for e in used}
    return math.lcm(*(fold for fold in folds if fold)) if None not in folds else extent


def _indices_of_registers(stmt: Stmt, varying: frozenset[Var]) -> Iterator[Expr]:
    """The indices of arrays in registers that depend on ``varying``."""
    if isinstance(stmt, Let) and free_vars(stmt.value) & varying:
        varying |= {stmt.var}
    used = [*stmt.indices] if isinstance(stmt, Store) and stmt.buffer.scope is Scope.REGISTER else []
    for e in expressions(stmt):
        for part in walk(e):
            if isinstance(part, Load) and part.source.scope is Scope.REGISTER:
                used += part.indices
    yield from (e for e in used if free_vars(e) & varying)
    for child in inner(stmt):
        yield from _indices_of_registers(child, varying)


def _fold(e: Expr, var: Var) -> int | None:
    """The number that ``var`` only matters modulo of; None when there is no such number."""
    folds: list[int] = []

    def without(part: Expr) -> Expr | None:
        is_fold = isinstance(part, Binary) and part.op == "floormod" and isinstance(part.right, Const)
        if not is_fold or var not in free_vars(part):
            return None
        folds.append(int(part.right.value))  # type: ignore[attr-defined]
        return const(0)

    rest = transform(e, without)
    return math.lcm(*folds) if folds and var not in free_vars(rest) else None


@contextlib.contextmanager
def named(frame: Frame, let: Let) -> Iterator[None]:
    """``let.var`` as a constant within; where not all predicates hold, its value is not computed."""
    found = span(frame, let.value) if let.var.dtype is DType.INT64 else Span(None, None, True)
    computed = value(frame, let.value)
    kind = computed.kind if let.var.dtype is DType.INT64 else code.value_type(let.var.dtype)
    if frame.predicates and may_fail(let.value):
        holds = code.conjunction([predicate.condition for predicate in frame.predicates])
        computed = code.chosen(holds, computed, Code("0", INT), kind)
    name = frame.names.fresh(let.var.name)
    frame.line(f"const {kind} {name} = {computed.text};")
    interval: Interval = found.interval
    is_data = let.var.dtype is not DType.INT64 or not found.trusted
    was_data = let.var in frame.data
    (frame.data.add if is_data else frame.data.discard)(let.var)
    if not is_data and not may_fail(let.value):
        frame.values[let.var] = let.value
    with frame.bound(let.var, Code(name, kind), interval, frame.depends_on(let.value)):
        yield
    frame.values.pop(let.var, None)
    (frame.data.add if was_data else frame.data.discard)(let.var)


def may_fail(e: Expr) -> bool:
    """Whether evaluating ``e`` where it is not wanted could load out of bounds or report a wrong index."""
    return any(isinstance(part, Load | CheckedIndex) for part in walk(e))


def declare_array(frame: Frame, buffer: Buffer, aligned: bool = False, initial: str = "") -> None:
    """An array (or variable, which may begin as something) of the thread's own for ``buffer``."""
    count = element_count(buffer, frame.kernel)
    frame.places[buffer] = name = frame.names.fresh(buffer.name)
    size = "" if is_scalar(buffer) else f"[{max(count, 1)}]"
    frame.line(f"{'__align__(16) ' if aligned else ''}{code.memory_type(buffer.dtype)} {name}{size}{initial};")


@contextlib.contextmanager
def by_one_thread(frame: Frame, buffer: Buffer) -> Iterator[None]:
    """What is emitted within, a store to ``buffer``, is executed once where several threads execute it alike.

    Registers are each thread's own: all threads store to them.
    """
    same = math.prod(frame.shape[len(frame.threads) :]) if frame.threads else frame.block
    if buffer.scope is Scope.REGISTER or same == 1:
        yield
        return
    number = f"threadIdx.x % {same}" if frame.threads else "threadIdx.x"
    with frame.braces(f"if ({number} == 0)"):
        yield


def tell_source(frame: Frame, store: Store) -> None:
    """A comment where another of the model's statements begins."""
    if store.source and store.source != frame.source:
        frame.source = store.source
        frame.line(f"// {comment(store.source)}")


def plain_store(frame: Frame, store: Store) -> None:
    """A store of the running thread."""
    target = element_of(frame, store.buffer, store.indices)
    if not store.reduce:
        frame.line(assigned(frame, target, store.value))
        return
    dtype = store.buffer.dtype
    operator = _COMPOUND.get(store.reduce)
    if operator and (dtype in (DType.FLOAT32, DType.FLOAT64, DType.UINT32, DType.UINT64)):
        frame.line(f"{target.text} {operator} {stored(frame, store.value).text};")
        return
    old = load(frame, Load(store.buffer, store.indices))
    new = operations.reduction(store.reduce, dtype, old, value(frame, store.value))
    frame.line(f"{target.text} = {operations.to_memory(new, dtype).text};")


_COMPOUND = {"sum": "+=", "prod": "*="}
