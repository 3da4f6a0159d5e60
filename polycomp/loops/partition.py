"""Splitting loops where conditions change: the steady part of a padded, sliced or tiled loop needs no checks.

A condition that is linear in a loop's variable is certainly false on one end of its range, certainly true on the
other, and depends on inner loops in between. The loop is cut there (index set splitting); in each part the condition
is replaced by what it is known to be. Conditions that a loop does not change at all are moved out of it (unswitching).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.dtypes import DType
from polycomp.expr import (
    Compare,
    Const,
    Expr,
    Interval,
    Select,
    Var,
    binary,
    bounds,
    compare,
    const,
    free_vars,
    linear_in,
    loads,
    maximum,
    minimum,
    simplify,
    terms,
    transform,
)
from polycomp.expr import walk as walk_expression
from polycomp.loops.guards import nonnegative_form
from polycomp.loops.ir import Alloc, Block, For, If, Let, Stmt, Store
from polycomp.loops.visit import block, expressions, for_range, map_expressions, replace_vars, simplified, walk
from polycomp.poly.tree import LoopKind, Scope

_MAXIMUM_STORES = 96  # a nest is not partitioned any further once it has this many stores: code size
_MAXIMUM_STORES_AT_RUN_TIME = 8  # cuts that are not known while compiling cannot be merged: keep them to small loops
_MAXIMUM_UNSWITCHES = 3  # conditions moved out of one loop: each doubles the code

Ranges = Mapping[Var, Interval]


@dataclasses.dataclass(frozen=True)
class _Cut:
    """``condition`` is false before ``false_end`` and true from ``true_start`` on (or the other way round).

    The loop's range is cut at ``first`` <= ``second``; ``before`` and ``after`` are the condition's values outside.
    """

    condition: Compare
    first: Expr
    second: Expr
    before: bool
    after: bool


def partition(stmt: Stmt, ranges: Ranges) -> Stmt:
    """``stmt`` with its serial and parallel loops cut where conditions inside of them change; a GPU's are left."""
    match stmt:
        case For() if stmt.kind is LoopKind.BLOCK:
            return stmt  # threads of a warp take the same branch, or both; and registers want loops of constant bounds
        case For() if stmt.kind is LoopKind.SERIAL:
            return _cut_loop(stmt, ranges, frozenset())
        case For() if stmt.kind is LoopKind.PARALLEL:
            # It stays one loop, so that its iterations are shared out evenly; its body branches instead.
            return dataclasses.replace(stmt, body=_branches(stmt, ranges, frozenset()))
        case For():
            inner = {**ranges, stmt.var: for_range(stmt, ranges)}
            return dataclasses.replace(stmt, body=partition(stmt.body, inner))
        case Let():
            return _partition_let(stmt, ranges)
        case If():
            orelse = None if stmt.orelse is None else partition(stmt.orelse, ranges)
            return If(stmt.condition, partition(stmt.body, ranges), orelse)
        case Alloc():
            return Alloc(stmt.buffer, partition(stmt.body, ranges))
        case Block():
            return block([partition(s, ranges) for s in stmt.stmts])
    return stmt


def _partition_let(let: Let, ranges: Ranges) -> Stmt:
    low, high = bounds(let.value, ranges)
    if low is None or high is None:
        return Let(let.var, let.value, partition(let.body, {**ranges, let.var: (low, high)}))
    values = For(let.var, const(low), const(high + 1), LoopKind.PARALLEL, let.body)
    return Let(let.var, let.value, _branches(values, ranges, frozenset()))


def _parts(loop: For, cut: _Cut, ranges: Ranges) -> list[For]:
    """The loop cut in (up to) three, the condition replaced by its value where that is known."""
    pieces = [(loop.start, cut.first, cut.before), (cut.first, cut.second, None), (cut.second, loop.stop, cut.after)]
    made: list[For] = []
    for start, stop, value in pieces:
        if simplify(stop - start, ranges) != const(0):
            body = loop.body if value is None else _assume(loop.body, cut.condition, value)
            made.append(dataclasses.replace(loop, start=start, stop=stop, body=body))
    return made


def _cut_loop(loop: For, ranges: Ranges, done: frozenset[Compare]) -> Stmt:
    cut = _next_cut(loop, ranges, done)
    if cut is None:
        inner = {**ranges, loop.var: for_range(loop, ranges)}
        return dataclasses.replace(loop, body=partition(loop.body, inner))
    inside = _within_stage(loop.body, loop, cut.condition, ranges, done)
    if inside is not None:
        body, decided = inside
        return _cut_loop(dataclasses.replace(loop, body=body), ranges, done | decided)
    made: list[Stmt] = []
    for part in _parts(loop, cut, ranges):
        new = simplified(part, ranges)
        again = isinstance(new, For) and new.var == loop.var
        made.append(_cut_loop(new, ranges, done | {cut.condition}) if again else partition(new, ranges))  # type: ignore[arg-type]
    return block(made)


def _branches(loop: For, ranges: Ranges, done: frozenset[Compare]) -> Stmt:
    """The body of ``loop`` with a branch for each part of its range."""
    inner = {**ranges, loop.var: for_range(loop, ranges)}
    cut = _next_cut(loop, ranges, done)
    if cut is None:
        return partition(simplified(loop.body, inner), inner)
    inside = _within_stage(loop.body, loop, cut.condition, ranges, done)
    if inside is not None:
        return _branches(dataclasses.replace(loop, body=inside[0]), ranges, done | inside[1])
    body: Stmt | None = None
    for part in reversed(_parts(loop, cut, ranges)):
        low, high = for_range(part, ranges)
        known = {part.var: const(low)} if low is not None and low == high else {}
        branch = _branches(
            dataclasses.replace(part, body=replace_vars(part.body, known)), ranges, done | {cut.condition}
        )
        body = branch if body is None else If(compare("lt", loop.var, part.stop), branch, body)
    return body if body is not None else Block(())


def _within_stage(
    stmt: Stmt, loop: For, condition: Compare, ranges: Ranges, done: frozenset[Compare]
) -> tuple[Stmt, frozenset[Compare]] | None:
    """``stmt``, in the body of ``loop``, with branches in the only one of its stages that tests ``condition``.

    The other stages, which go through memory, are then not repeated for each part of the loop. The second result is
    the conditions that were dealt with. None when there are no such stages.
    """
    match stmt:
        case Alloc() if stmt.buffer.scope is Scope.WORKSPACE:
            inside = _within_stage(stmt.body, loop, condition, ranges, done)
            return None if inside is None else (Alloc(stmt.buffer, inside[0]), inside[1])
        case Block():
            using = [s for s in stmt.stmts if condition in conditions_in(s)]
            others = [s for s in stmt.stmts if s not in using]
            if len(using) != 1 or not any(isinstance(s, For) for other in others for s in walk(other)):
                return None
            inside = _within_stage(using[0], loop, condition, ranges, done)
            if inside is None:
                branches = _branches(dataclasses.replace(loop, body=using[0]), ranges, done)
                inside = branches, frozenset(conditions_in(using[0]))
            return block([inside[0] if s is using[0] else s for s in stmt.stmts]), inside[1]
    return None


def _count_stores(stmt: Stmt) -> int:
    return sum(isinstance(s, Store) for s in walk(stmt))


def _assume(stmt: Stmt, condition: Compare, value: bool) -> Stmt:
    known = const(value, DType.BOOL)
    return map_expressions(stmt, lambda e: transform(e, lambda n: known if n == condition else None))


def conditions_in(stmt: Stmt) -> list[Compare]:
    """The comparisons that guard statements or select values inside of ``stmt``, each once."""
    found: dict[Compare, None] = {}
    for inside in walk(stmt):
        for e in expressions(inside):
            if isinstance(inside, If) and e is inside.condition:
                found.update(dict.fromkeys(n for n in walk_expression(e) if isinstance(n, Compare)))
            for node in walk_expression(e):
                if isinstance(node, Select):
                    found.update(dict.fromkeys(n for n in walk_expression(node.condition) if isinstance(n, Compare)))
    return list(found)


def _next_cut(loop: For, ranges: Ranges, done: frozenset[Compare]) -> _Cut | None:
    if _count_stores(loop) > _MAXIMUM_STORES:
        return None
    inner = _inner_ranges(loop.body, {**ranges, loop.var: for_range(loop, ranges)})
    for condition in conditions_in(loop.body):
        if condition not in done and loop.var in free_vars(condition):
            cut = _cut(condition, loop, inner, ranges)
            if cut is not None:
                return cut
    return None


def _inner_ranges(stmt: Stmt, ranges: Ranges) -> dict[Var, Interval]:
    """Bounds of the variables of the loops inside of ``stmt`` only (None where they are not constant)."""
    found: dict[Var, Interval] = {}
    for inside in walk(stmt):
        if isinstance(inside, For):
            found[inside.var] = for_range(inside, {**ranges, **found})
        elif isinstance(inside, Let):
            found[inside.var] = (None, None)
    return found


def _cut(condition: Compare, loop: For, inner: Ranges, ranges: Ranges) -> _Cut | None:
    excess = nonnegative_form(condition)
    linear = None if excess is None else linear_in(excess, loop.var)
    if excess is None or linear is None or linear[0] == 0 or loads(excess):
        return None
    coefficient, rest = linear
    split = _split_inner(rest, inner)
    if split is None:
        return None
    outer, low, high = split
    if not isinstance(outer, Const):  # the cut is only known at run time
        if free_vars(rest) & _serial_variables(loop.body):
            return None  # leave it to the innermost loop that decides
        if _count_stores(loop) > _MAXIMUM_STORES_AT_RUN_TIME:
            return None
    if coefficient > 0:
        false_end = _clip(binary("floordiv", const(coefficient - 1 - high) - outer, coefficient), loop, ranges)
        true_start = _clip(binary("floordiv", const(coefficient - 1 - low) - outer, coefficient), loop, ranges)
        if not isinstance(outer, Const):  # one cut at run time is enough: certainly true, and the rest
            false_end = loop.start
        cut = _Cut(condition, false_end, true_start, False, True)
    else:
        true_end = _clip(binary("floordiv", outer + low, -coefficient) + 1, loop, ranges)
        false_start = _clip(binary("floordiv", outer + high, -coefficient) + 1, loop, ranges)
        if not isinstance(outer, Const):
            false_start = loop.stop
        cut = _Cut(condition, true_end, false_start, True, False)
    return cut if _is_worthwhile(cut, loop) else None


def _serial_variables(stmt: Stmt) -> frozenset[Var]:
    """The variables of the loops in ``stmt`` that stay loops in the code (not vectors, not unrolled)."""
    return frozenset(
        s.var for s in walk(stmt) if isinstance(s, For) and (s.kind is LoopKind.SERIAL or s.kind.is_shared_out)
    )


def _split_inner(rest: Expr, inner: Ranges) -> tuple[Expr, int, int] | None:
    """``rest`` as a part over outer variables, plus constant bounds of the part over inner loops."""
    outer: Expr = const(0)
    low = high = 0
    for coefficient, product in terms(rest):
        if not free_vars(product) & inner.keys():
            outer = outer + product * coefficient
            continue
        least, most = bounds(product * coefficient, inner)
        if least is None or most is None:
            return None
        low, high = low + least, high + most
    return simplify(outer), low, high


def _clip(point: Expr, loop: For, ranges: Ranges) -> Expr:
    """``point``, no further out than the loop's bounds."""
    return simplify(maximum(minimum(simplify(point, ranges), loop.stop), loop.start), ranges)


def _is_worthwhile(cut: _Cut, loop: For) -> bool:
    """Whether some part of the loop is decided: not when the doubtful middle is the whole range."""
    whole = cut.first == loop.start and cut.second == loop.stop
    if whole and isinstance(cut.first, Const) and isinstance(cut.second, Const):
        return False
    return not whole


def unswitch(stmt: Stmt, budget: int = _MAXIMUM_UNSWITCHES, known: frozenset[Var] = frozenset()) -> Stmt:
    """``stmt`` with selects that a loop does not change decided outside of that loop.

    ``known`` are the variables of unrolled loops around it: what depends on them alone is decided when they unroll.
    """
    match stmt:
        case For() if stmt.kind is LoopKind.BLOCK:
            return stmt
        case For():
            return _unswitch_loop(stmt, budget, known | {stmt.var} if stmt.kind is LoopKind.UNROLL else known)
        case If():
            orelse = None if stmt.orelse is None else unswitch(stmt.orelse, budget, known)
            return If(stmt.condition, unswitch(stmt.body, budget, known), orelse)
        case Let():
            return Let(stmt.var, stmt.value, unswitch(stmt.body, budget, known))
        case Alloc():
            return Alloc(stmt.buffer, unswitch(stmt.body, budget, known))
        case Block():
            return block([unswitch(s, budget, known) for s in stmt.stmts])
    return stmt


def _unswitch_loop(loop: For, budget: int, known: frozenset[Var]) -> Stmt:
    candidates = conditions_in(loop.body) if budget and loop.kind is not LoopKind.PARALLEL else []
    for condition in candidates:
        used = free_vars(condition)
        if not used & _variables(loop) and not used <= known and not loads(condition):
            yes, no = (simplified(_assume(loop, condition, value), {}) for value in (True, False))
            return If(condition, unswitch(yes, budget - 1, known), unswitch(no, budget - 1, known))
    return dataclasses.replace(loop, body=unswitch(loop.body, budget, known))


def _variables(stmt: Stmt) -> frozenset[Var]:
    """All variables that ``stmt`` binds."""
    return frozenset(s.var for s in walk(stmt) if isinstance(s, For | Let))
