"""Rewrites of the tree's shape: loop interchange, and computing a producer inside of a consumer's loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from polycomp.errors import NestingError, PlacementError, UnknownLoopError
from polycomp.expr import (
    Binary,
    Compare,
    Const,
    Expr,
    Interval,
    Load,
    Select,
    Var,
    bounds,
    compare,
    const,
    free_vars,
    linear_in,
    loads,
    minimum,
    prove,
    simplify,
    substitute,
    terms,
    transform,
    wrap,
)
from polycomp.expr import walk as walk_expression
from polycomp.poly.bounds import required_region
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope, walk
from polycomp.schedules import stages
from polycomp.schedules.handles import quoted
from polycomp.schedules.hints import counting, with_hints_around
from polycomp.schedules.notation import notation
from polycomp.schedules.rewrite import (
    Nodes,
    loop_names,
    loop_range,
    path_to_loop,
    ranges_of_path,
    remove_statements,
    replace_loop,
    statements_in,
    substitute_loops,
)
from polycomp.te import Dim, Tensor


@dataclasses.dataclass(frozen=True)
class _Level:
    """One loop of a chain being reordered, and what stands before the chain's next loop in its body."""

    loop: Loop
    before: Nodes


def reordered(
    top: Loop, order: Sequence[Var], taken: set[str], made: dict[Var, tuple[Var, ...]] | None = None
) -> Nodes:
    """The nest starting at ``top`` with the loops ``order`` in that order; see ``Schedule.reorder``.

    The copies made of a loop are added to its entry in ``made``.
    """
    levels, body = _chain(top, frozenset(order))
    wanted = iter(order)
    by_var = {level.loop.var: level.loop for level in levels}
    new = [by_var[next(wanted)] if level.loop.var in order else level.loop for level in levels]
    _check_extents(new)
    positions: dict[int, list[Node]] = {}
    for index, level in enumerate(levels):
        if level.before:
            inside = frozenset(x.loop.var for x in levels[: index + 1])
            position, copies = _place_before(level.before, new, inside, taken, {} if made is None else made)
            positions.setdefault(position, []).extend(copies)
    for index in reversed(range(len(new))):
        body = (dataclasses.replace(new[index], body=(*positions.get(index + 1, ()), *body)),)
    return (*positions.get(0, ()), *body)


def _chain(top: Loop, wanted: frozenset[Var]) -> tuple[list[_Level], Nodes]:
    """The loops from ``top`` down to the last wanted one, and the body of that one."""
    levels: list[_Level] = []
    node = top
    remaining = set(wanted)
    while True:
        remaining.discard(node.var)
        if not remaining:
            levels.append(_Level(node, ()))
            return levels, node.body
        *before, last = node.body
        if not isinstance(last, Loop):
            what = "storage" if isinstance(last, Allocate) else "a statement"
            raise NestingError(
                f"reorder: {what} stands between loop {node.var.name!r} and "
                f"{quoted(sorted(v.name for v in remaining))}; reorder before computing a stage there"
            )
        levels.append(_Level(node, tuple(before)))
        node = last


def _check_extents(loops: Sequence[Loop]) -> None:
    for index, loop in enumerate(loops):
        later = {x.var for x in loops[index:]}
        needed = free_vars(wrap(loop.extent)) & later
        if needed:
            names = quoted(sorted(v.name for v in needed))
            raise NestingError(
                f"reorder: the extent of loop {loop.var.name!r} depends on {names}, which must stay outside"
            )


def _place_before(
    nodes: Nodes, loops: Sequence[Loop], inside: frozenset[Var], taken: set[str], made: dict[Var, tuple[Var, ...]]
) -> tuple[int, Nodes]:
    """Where ``nodes``, which belong inside the loops ``inside`` alone, go in the new order, with the loops they need.

    They come before the first loop that they are not inside of; loops that moved behind it are copied around them.
    """
    position = next((i for i, x in enumerate(loops) if x.var not in inside), len(loops))
    copies = [x for x in loops[position:] if x.var in inside]
    fresh = {x.var: Var(stages.fresh_name(x.var.name, taken)) for x in copies}
    made.update({old: (*made.get(old, ()), new) for old, new in fresh.items()})
    body = substitute_loops(nodes, fresh, {}) if fresh else nodes
    for old, new in fresh.items():
        body = with_hints_around(body, old, counting(new))
    return position, stages.nest([dataclasses.replace(x, var=fresh[x.var], prefetch=()) for x in copies], body)


def with_storage(tree: Nodes, tensor: Tensor, change: Callable[[Allocate], Allocate]) -> Nodes:
    """The tree with the storage of ``tensor`` changed."""
    result: list[Node] = []
    for node in tree:
        if isinstance(node, Leaf):
            result.append(node)
            continue
        node = dataclasses.replace(node, body=with_storage(node.body, tensor, change))
        result.append(change(node) if isinstance(node, Allocate) and node.tensor is tensor else node)
    return tuple(result)


def folded(tree: Nodes, tensor: Tensor, dimension: int, factor: int) -> Nodes:
    """The tree with ``tensor`` kept modulo ``factor`` along one dimension (0: whole)."""

    def change(node: Allocate) -> Allocate:
        folds = node.folds or (0,) * tensor.rank
        return dataclasses.replace(node, folds=(*folds[:dimension], factor, *folds[dimension + 1 :]))

    return with_storage(tree, tensor, change)


def compute_at(
    kernel: Kernel, tensor: Tensor, loop: Var, scope: Scope, overcompute: bool, avoid: frozenset[str] = frozenset()
) -> Kernel:
    """Compute what an iteration of ``loop`` needs of ``tensor`` inside of it; see ``Schedule.compute_at``.

    New loops get none of the names in ``avoid``.
    """
    found = stages.statements_for(kernel, tensor)
    if tensor in kernel.outputs:
        raise PlacementError(f"compute_at of {tensor.name!r}: it is an output of the kernel and must be stored whole")
    if tensor.is_recurrence and len(_dimensions_of_itself(tensor)) == tensor.rank:
        raise PlacementError(
            f"compute_at of {tensor.name!r}: it is defined by elements of itself along every dimension, so it is "
            f"stored whole"
        )
    tree = stages.without_storage(remove_statements(kernel.tree, frozenset(s.name for s in found)), tensor)
    path = path_to_loop(tree, loop)
    if path is None:
        raise PlacementError(f"compute_at: there is no loop {loop.name!r} outside of {tensor.name!r} itself")
    node = path[-1]
    assert isinstance(node, Loop)
    _check_readers_inside(kernel, tensor, node, found)
    ranges = ranges_of_path(path, kernel.ranges)
    region = _region(kernel, tensor, node, ranges)
    beyond = _guarded_dimensions(kernel, tensor, node)
    if overcompute:
        clamp = _Clamp(region, ranges, _extents(path), beyond)
        found = tuple(clamp.statement(s) for s in found)
        kernel = stages.with_statements(kernel, {s.name: s for s in found})
    taken = {*loop_names(tree), *(v.name for v in kernel.sizes), *avoid}
    stage = _stage_over_region(found, region, ranges, taken, frozenset() if overcompute else beyond, _extents(path))
    origin, shape = tuple(o for o, _ in region), tuple(e for _, e in region)
    if scope is not Scope.WORKSPACE and not all(isinstance(e, int) for e in shape):
        extents, where = (
            ", ".join(notation(wrap(e)) for e in shape),
            "shared memory" if scope is Scope.SHARED else "registers",
        )
        raise PlacementError(f"compute_at of {tensor.name!r} in {where}: its tile [{extents}] is not of constant size")
    using = frozenset(s.name for s in kernel.statements.values() if stages.reads(s, tensor) and s.tensor is not tensor)

    def insert(old: Loop) -> Nodes:
        body = (Allocate(tensor, scope, origin, shape, before_first(old.body, using, stage)),)
        return (dataclasses.replace(old, body=body),)

    return dataclasses.replace(kernel, tree=replace_loop(tree, loop, insert))


def before_first(body: Nodes, using: frozenset[str], stage: Nodes) -> Nodes:
    """``body`` with ``stage`` in front of the first node that executes a reader, inside of allocations."""
    result: list[Node] = []
    pending = True
    for node in body:
        if pending and statements_in((node,)) & using:
            pending = False
            if isinstance(node, Allocate):
                result.append(dataclasses.replace(node, body=before_first(node.body, using, stage)))
                continue
            result.extend(stage)
        result.append(node)
    return tuple(result)


def _check_readers_inside(kernel: Kernel, tensor: Tensor, loop: Loop, own: tuple[Statement, ...]) -> None:
    inside = statements_in((loop,))
    names = {s.name for s in own}
    outside = [s.name for s in kernel.statements.values() if stages.reads(s, tensor) and s.name not in inside | names]
    if outside:
        raise PlacementError(
            f"compute_at of {tensor.name!r} inside of loop {loop.var.name!r}: {outside[0]!r} reads it outside of "
            f"that loop"
        )


def needed_region(kernel: Kernel, tensor: Tensor, loop: Var) -> tuple[tuple[Expr, Dim], ...]:
    """The box of ``tensor``'s elements that one iteration of ``loop`` reads: origin and extent per dimension."""
    path = path_to_loop(kernel.tree, loop)
    if path is None:
        raise UnknownLoopError(f"there is no loop {loop.name!r}")
    node = path[-1]
    assert isinstance(node, Loop)
    return _region(kernel, tensor, node, ranges_of_path(path, kernel.ranges))


def _region(kernel: Kernel, tensor: Tensor, loop: Loop, ranges: Mapping[Var, Interval]) -> tuple[tuple[Expr, Dim], ...]:
    indices: list[tuple[Expr, ...]] = []
    inner: dict[Var, Dim] = {}
    for node, path in walk(loop.body):
        if not isinstance(node, Leaf):
            continue
        statement = kernel.statements[node.statement]
        values: dict[Var, Expr] = dict(zip(statement.iters, node.point, strict=True))
        for load in loads(statement.value):
            if load.source is tensor:
                # Simplified: (f // n)*n + f % n is f, whose bounds are those of the loop.
                within = {**ranges, **{n.var: loop_range(n.extent, ranges) for n in path if isinstance(n, Loop)}}
                indices.append(tuple(simplify(substitute(i, values), within) for i in load.indices))
                inner.update({n.var: n.extent for n in path if isinstance(n, Loop)})
    box = required_region(indices, inner, ranges)
    whole = _dimensions_of_itself(tensor)
    shape = enumerate(zip(box, tensor.shape, strict=True))
    return tuple((const(0), n) if b is None or d in whole else b for d, (b, n) in shape)


def _dimensions_of_itself(tensor: Tensor) -> frozenset[int]:
    """Dimensions along which a tensor is defined by other elements of itself: the steps of a recurrence, neighbours."""
    if tensor.body is None:
        return frozenset()
    own = [load for load in loads(tensor.body) if load.source is tensor]
    return frozenset(d for load in own for d, index in enumerate(load.indices) if index is not tensor.axes[d])


def _stage_over_region(
    found: tuple[Statement, ...],
    region: tuple[tuple[Expr, Dim], ...],
    ranges: Mapping[Var, Interval],
    taken: set[str],
    guarded: frozenset[int],
    outer: Mapping[Var, Dim],
) -> Nodes:
    """The loops of a stage over a region. Dimensions in ``guarded`` are guarded where the box may reach beyond the
    tensor; ``outer`` has the extents of the loops around."""
    tensor, last = found[0].tensor, found[-1]
    rank = len(region)
    extents = [*(e for _, e in region), *(a.extent for a in last.iters[rank:])]
    names = [Var(stages.fresh_name(a.name, taken)) for a in last.iters]
    loops = [Loop(v, e, LoopKind.SERIAL, ()) for v, e in zip(names, extents, strict=True)]
    inner = {**ranges, **{x.var: loop_range(x.extent, ranges) for x in loops}}
    point = tuple(simplify(o + v, inner) for (o, _), v in zip(region, names[:rank], strict=True))
    pairs = [(point[d], tensor.shape[d]) for d in sorted(guarded)]
    limits = [simplify(c, inner) for p, n in pairs for c in (compare("ge", p, 0), compare("lt", p, n))]
    guards = tuple(c for c in limits if prove(c, inner) is not True and not holds_to_the_end(c, outer, inner))
    return stages.stage_nest(found, loops, (*point, *names[rank:]), guards)


def holds_to_the_end(condition: Expr, loops: Mapping[Var, Dim], ranges: Mapping[Var, Interval]) -> bool:
    """Whether a condition surely holds in all iterations of ``loops`` of symbolic extents: it is linear in their
    variables, so that their first or their last iteration is the one to look at, and ``d*(x // d)`` is at most x."""
    if not isinstance(condition, Compare) or condition.op not in ("lt", "ge"):
        return False
    excess = condition.left - condition.right if condition.op == "ge" else condition.right - condition.left - 1
    for var, extent in loops.items():
        if isinstance(extent, int) or var not in free_vars(excess):
            continue
        linear = linear_in(simplify(excess, ranges), var)
        if linear is None:
            return False
        excess = linear[1] if linear[0] > 0 else linear[1] + (wrap(extent) - 1) * linear[0]
    total: Expr = const(0)
    for factor, product in terms(simplify(excess, ranges)):
        total = total + _as_remainder(factor, product)
    low = bounds(simplify(total, ranges), ranges)[0]
    return low is not None and low >= 0


def _as_remainder(factor: int, product: Expr) -> Expr:
    """``factor*product``, a multiple of ``d*(x // d)`` as one of ``x - x % d``."""
    if isinstance(product, Binary) and product.op == "floordiv" and isinstance(product.right, Const):
        divisor = int(product.right.value)
        if divisor > 0 and factor % divisor == 0:
            return (product.left - product.left % divisor) * (factor // divisor)
    return product * factor


def _extents(path: Sequence[Node]) -> dict[Var, Dim]:
    return {n.var: n.extent for n in path if isinstance(n, Loop)}


def _guarded_dimensions(kernel: Kernel, tensor: Tensor, loop: Loop) -> frozenset[int]:
    """Dimensions of ``tensor`` along which the box that ``loop`` needs may reach beyond the tensor.

    That takes a reader whose index depends on a guarded loop or is clamped (the box is that of the smallest index and
    the most iterations), or that reads in one side of a select: every other read is inside for all iterations, and so
    is the box around them.
    """
    found: set[int] = set()
    for node, _ in walk(loop.body):
        if not isinstance(node, Leaf):
            continue
        statement = kernel.statements[node.statement]
        values: dict[Var, Expr] = dict(zip(statement.iters, node.point, strict=True))
        guarded = frozenset[Var]().union(*(free_vars(g) for g in node.guards))
        selected = _selected_loads(statement.value)
        for load in loads(statement.value):
            if load.source is tensor:
                indices = [substitute(i, values) for i in load.indices]
                found |= {d for d, i in enumerate(indices) if load in selected or _may_leave(i, guarded)}
    return frozenset(found)


def _may_leave(index: Expr, guarded: frozenset[Var]) -> bool:
    clamped = any(isinstance(n, Binary) and n.op in ("min", "max") for n in walk_expression(index))
    return clamped or bool(free_vars(index) & guarded)


def _selected_loads(e: Expr) -> frozenset[Load]:
    """The loads that a select may leave out."""
    sides = [side for n in walk_expression(e) if isinstance(n, Select) for side in (n.on_true, n.on_false)]
    return frozenset(load for side in sides for load in loads(side))


class _Clamp:
    """Keeps the reads of an over-computed stage within their tensors, by clamping its iterators to the edge."""

    def __init__(
        self,
        region: tuple[tuple[Expr, Dim], ...],
        ranges: Mapping[Var, Interval],
        extents: Mapping[Var, Dim],
        dimensions: frozenset[int],
    ) -> None:
        self.region, self.ranges, self.extents, self.dimensions = region, ranges, extents, dimensions

    def statement(self, statement: Statement) -> Statement:
        """``statement`` with every index that may lie outside of its tensor clamped."""
        inner, points = dict(self.ranges), dict[Var, Expr]()
        for axis, (origin, extent) in zip(statement.iters, self.region, strict=False):
            local = Var(f"{axis.name}.local")
            inner[local] = loop_range(extent, self.ranges)
            points[axis] = origin + local
        for axis in statement.iters[len(self.region) :]:
            inner[axis] = loop_range(axis.extent, self.ranges)
        shape = statement.tensor.shape
        clamped: dict[Var, Expr] = {a: minimum(a, wrap(n) - 1) for a, n in zip(statement.iters, shape, strict=False)}
        tiled = frozenset(statement.iters[d] for d in self.dimensions)

        def rewrite(e: Expr) -> Expr | None:
            if not isinstance(e, Load):
                return None
            pairs = zip(e.indices, e.source.shape, strict=True)
            keep = (not free_vars(i) & tiled or self._inside(substitute(i, points), n, inner) for i, n in pairs)
            return Load(
                e.source, tuple(i if k else substitute(i, clamped) for i, k in zip(e.indices, keep, strict=True))
            )

        return dataclasses.replace(statement, value=transform(statement.value, rewrite))

    def _inside(self, index: Expr, limit: Dim, ranges: Mapping[Var, Interval]) -> bool:
        """Whether ``index < limit`` surely holds: by its bounds, or because it is a loop that runs up to ``limit``."""
        where = simplify(index, ranges)
        if isinstance(where, Var) and where in self.extents:
            return simplify(wrap(self.extents[where])) == simplify(wrap(limit))
        return bool(prove(simplify(compare("lt", where, limit), ranges), ranges))
