"""Rewrites of a kernel's statements: inlining, caches, partial reductions. New stages get plain loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from polycomp.dtypes import DType
from polycomp.errors import FactorError, PlacementError, UnknownTensorError
from polycomp.expr import (
    Expr,
    Load,
    Reduce,
    Var,
    compare,
    const,
    loads,
    select,
    simplify,
    substitute,
    transform,
    wrap,
)
from polycomp.poly.kernel import Kernel, Statement, statements_of
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope, walk
from polycomp.schedules.rewrite import Nodes, as_dim, remove_statements, statements_in
from polycomp.te import Axis, Tensor, reduce_identity


def fresh_name(wanted: str, taken: set[str]) -> str:
    """``wanted``, or with a number behind it when that is taken; the result is added to ``taken``."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}{number}"
    taken.add(name)
    return name


def fresh_tensor_name(kernel: Kernel, wanted: str) -> str:
    """``wanted``, or with a number behind it when the kernel already has a tensor of that name."""
    taken = {s.tensor.name for s in kernel.statements.values()} | {t.name for t in kernel.inputs}
    return fresh_name(wanted, taken)


def stage_tree(statements: tuple[Statement, ...], taken: set[str]) -> Nodes:
    """Loops over the whole domain of a stage: spatial loops, then initialisation and reduction loops."""
    last = statements[-1]
    loops = [Loop(Var(fresh_name(a.name, taken)), a.extent, LoopKind.SERIAL, ()) for a in last.iters]
    return stage_nest(statements, loops, tuple(loop.var for loop in loops), ())


def stage_nest(
    statements: tuple[Statement, ...], loops: list[Loop], point: tuple[Expr, ...], guards: tuple[Expr, ...]
) -> Nodes:
    """The stage's leaves at ``point`` within ``loops`` (one per iterator); the initialisation has no reduce loops."""
    first, last = statements[0], statements[-1]
    rank = len(first.iters)
    body: Nodes = (Leaf(last.name, point, guards),)
    if first is not last:
        body = (Leaf(first.name, point[:rank], guards), *nest(loops[rank:], body))
    return nest(loops[:rank], body)


def nest(loops: list[Loop], body: Nodes) -> Nodes:
    """``body`` inside of ``loops``, the first outermost."""
    for loop in reversed(loops):
        body = (dataclasses.replace(loop, body=body),)
    return body


def redirect(value: Expr, tensor: Tensor, change: Callable[[tuple[Expr, ...]], Expr], only: Load | None = None) -> Expr:
    """``value`` with every load from ``tensor`` (or those equal to ``only``) replaced by ``change`` of its indices."""

    def rewrite(e: Expr) -> Expr | None:
        wanted = isinstance(e, Load) and e.source is tensor and only in (None, e)
        return change(e.indices) if isinstance(e, Load) and wanted else None

    return transform(value, rewrite)


def reads(statement: Statement, tensor: Tensor) -> bool:
    """Whether ``statement`` loads from ``tensor``."""
    return any(load.source is tensor for e in (statement.value, *statement.indices) for load in loads(e))


def statements_for(kernel: Kernel, tensor: Tensor) -> tuple[Statement, ...]:
    """The statements that write ``tensor``, in order. Raises ScheduleError when there are none."""
    found = tuple(s for s in kernel.statements.values() if s.tensor is tensor)
    if not found:
        names = ", ".join(dict.fromkeys(s.tensor.name for s in kernel.statements.values()))
        raise UnknownTensorError(f"tensor {tensor.name!r} is not computed by this schedule; it computes {names}")
    return found


def with_statements(kernel: Kernel, changed: Mapping[str, Statement], removed: frozenset[str] = frozenset()) -> Kernel:
    """The kernel with statements replaced, added and removed, producers listed before their readers."""
    merged = {**kernel.statements, **changed}
    remaining = {n: s for n, s in merged.items() if n not in removed}
    return dataclasses.replace(kernel, statements=_producers_first(remaining))


def _producers_first(statements: dict[str, Statement]) -> dict[str, Statement]:
    by_tensor: dict[Tensor, list[str]] = {}
    for name, statement in statements.items():
        by_tensor.setdefault(statement.tensor, []).append(name)
    ordered: dict[str, Statement] = {}

    def visit(tensor: Tensor) -> None:
        for name in by_tensor.pop(tensor, []):
            for load in loads(statements[name].value):
                visit(load.source)
            ordered[name] = statements[name]

    for statement in list(statements.values()):
        visit(statement.tensor)
    return ordered


def inline(kernel: Kernel, tensor: Tensor) -> Kernel:
    """Replace every read of ``tensor`` by its definition and compute it nowhere."""
    found = statements_for(kernel, tensor)
    if tensor in kernel.outputs:
        raise PlacementError(f"compute_inline of {tensor.name!r}: it is an output of the kernel and must be stored")
    if len(found) > 1 or found[0].reduce:
        raise PlacementError(
            f"compute_inline of {tensor.name!r}: it is a reduction, which would be repeated by every reader; use "
            f"compute_at instead"
        )
    definition = found[0]
    if reads(definition, tensor):
        raise PlacementError(f"compute_inline of {tensor.name!r}: it is defined by elements of itself, so it is stored")

    def change(indices: tuple[Expr, ...]) -> Expr:
        return substitute(definition.value, dict(zip(definition.iters, indices, strict=True)))

    changed = {
        s.name: dataclasses.replace(s, value=redirect(s.value, tensor, change))
        for s in kernel.statements.values()
        if reads(s, tensor)
    }
    tree = without_storage(remove_statements(kernel.tree, frozenset([definition.name])), tensor)
    return dataclasses.replace(with_statements(kernel, changed, frozenset([definition.name])), tree=tree)


def without_storage(tree: Nodes, tensor: Tensor) -> Nodes:
    """The tree without the Allocate nodes of ``tensor``."""
    result: list[Node] = []
    for node in tree:
        if isinstance(node, Leaf):
            result.append(node)
        elif isinstance(node, Allocate) and node.tensor is tensor:
            result.extend(without_storage(node.body, tensor))
        else:
            result.append(dataclasses.replace(node, body=without_storage(node.body, tensor)))
    return tuple(result)


def with_root_storage(tree: Nodes, tensor: Tensor) -> Nodes:
    """The tree within storage for the whole of ``tensor``."""
    zero = tuple(const(0) for _ in tensor.shape)
    return (Allocate(tensor, Scope.WORKSPACE, zero, tensor.shape, tree),)


def insert_beside(tree: Nodes, statement: str, new: Nodes, after: bool) -> Nodes:
    """Insert ``new`` before or after the outermost loop around ``statement`` (inside of allocations)."""
    result: list[Node] = []
    for node in tree:
        if statement not in statements_in((node,)):
            result.append(node)
        elif isinstance(node, Allocate):
            result.append(dataclasses.replace(node, body=insert_beside(node.body, statement, new, after)))
        else:
            result.extend((node, *new) if after else (*new, node))
    return tuple(result)


def at_root(kernel: Kernel, tensor: Tensor, taken: set[str]) -> Kernel:
    """Compute the whole of ``tensor`` in plain loops before the first loop that reads it."""
    found = statements_for(kernel, tensor)
    if tensor in kernel.outputs:
        raise PlacementError(f"compute_root of {tensor.name!r}: it is an output and is stored whole already")
    tree = without_storage(remove_statements(kernel.tree, frozenset(s.name for s in found)), tensor)
    readers = [s.name for s in kernel.statements.values() if reads(s, tensor)]
    first = next(n.statement for n, _ in walk(tree) if isinstance(n, Leaf) and n.statement in readers)
    tree = insert_beside(tree, first, stage_tree(found, taken), after=False)
    return dataclasses.replace(kernel, tree=with_root_storage(tree, tensor))


def _renamed(tree: Nodes, names: Mapping[str, str]) -> Nodes:
    result: list[Node] = []
    for node in tree:
        if isinstance(node, Leaf):
            result.append(dataclasses.replace(node, statement=names.get(node.statement, node.statement)))
        else:
            result.append(dataclasses.replace(node, body=_renamed(node.body, names)))
    return tuple(result)


def cache_write(kernel: Kernel, tensor: Tensor, taken: set[str]) -> tuple[Kernel, Tensor]:
    """Compute ``tensor`` in ``<name>.acc``, which takes over its loops, and copy from there in new plain loops."""
    found = statements_for(kernel, tensor)
    acc = dataclasses.replace(tensor, name=fresh_tensor_name(kernel, f"{tensor.name}.acc"))
    moved = {s.name: dataclasses.replace(s, name=acc.name + s.name[len(tensor.name) :], tensor=acc) for s in found}
    copy = Statement(tensor.name, tensor, tensor.axes, tuple(tensor.axes), Load(acc, tuple(tensor.axes)))
    tree = _renamed(kernel.tree, {old: s.name for old, s in moved.items()})
    last = list(moved.values())[-1].name
    tree = insert_beside(tree, last, stage_tree((copy,), taken), after=True)
    statements = {s.name: s for s in (*moved.values(), copy)}
    removed = frozenset(s.name for s in found) - {copy.name}
    new = with_statements(kernel, statements, removed)
    return dataclasses.replace(new, tree=with_root_storage(tree, acc)), acc


def cache_read(
    kernel: Kernel, tensor: Tensor, reader: Tensor, tiles: Mapping[int, int], access: int | None, taken: set[str]
) -> tuple[Kernel, Tensor]:
    """Let the statements of ``reader`` read a tiled copy of ``tensor``, at all accesses or at one of them."""
    using = [s for s in statements_for(kernel, reader) if reads(s, tensor)]
    if not using:
        raise UnknownTensorError(f"cache_read: {reader.name!r} does not read {tensor.name!r}")
    wrong = [d for d in tiles if not 0 <= d < tensor.rank]
    if wrong:
        raise FactorError(f"cache_read: {tensor.name!r} has {tensor.rank} dimensions, there is no dimension {wrong[0]}")
    packed = _packed_copy(tensor, tiles, reader, fresh_tensor_name(kernel, f"{tensor.name}.packed"))

    def change(indices: tuple[Expr, ...]) -> Expr:
        outer = (indices[d] // f for d, f in tiles.items())
        rest = (i for d, i in enumerate(indices) if d not in tiles)
        return Load(packed, (*outer, *rest, *(indices[d] % f for d, f in tiles.items())))

    def changed_value(value: Expr) -> Expr:
        return redirect(value, tensor, change, None if access is None else _access(value, tensor, access))

    changed = {s.name: dataclasses.replace(s, value=changed_value(s.value)) for s in using}
    made = statements_of(packed)
    tree = insert_beside(kernel.tree, using[-1].name, stage_tree(made, taken), after=False)
    new = with_statements(kernel, {**{s.name: s for s in made}, **changed})
    return dataclasses.replace(new, tree=with_root_storage(tree, packed)), packed


def _access(value: Expr, tensor: Tensor, number: int) -> Load:
    """The load of ``tensor`` in ``value`` with that number; equal loads are one."""
    found = list(dict.fromkeys(load for load in loads(value) if load.source is tensor))
    if not 0 <= number < len(found):
        raise FactorError(f"cache_read: {tensor.name!r} has {len(found)} accesses there, there is no access {number}")
    return found[number]


def _packed_copy(tensor: Tensor, tiles: Mapping[int, int], reader: Tensor, name: str) -> Tensor:
    outer = [as_dim(simplify((wrap(tensor.shape[d]) + (f - 1)) // f)) for d, f in tiles.items()]
    rest = [n for d, n in enumerate(tensor.shape) if d not in tiles]
    shape = (*outer, *rest, *tiles.values())
    axes = tuple(Axis(f"p{d}", DType.INT64, n) for d, n in enumerate(shape))
    whole = dict(zip(tiles, axes, strict=False))
    inner = dict(zip(tiles, axes[tensor.rank :], strict=True))
    plain = iter(axes[len(tiles) : tensor.rank])
    indices = tuple(whole[d] * tiles[d] + inner[d] if d in tiles else next(plain) for d in range(tensor.rank))
    value: Expr = Load(tensor, indices)
    for d, factor in tiles.items():
        if simplify(wrap(tensor.shape[d]) % factor) != const(0):
            inside = compare("lt", indices[d], tensor.shape[d])
            value = select(inside, value, const(0, tensor.dtype))
    return Tensor(name, shape, tensor.dtype, axes, value, reader.source)


def rfactor(
    kernel: Kernel, tensor: Tensor, axis: int, factor: int, blocked: bool, taken: set[str]
) -> tuple[Kernel, Tensor]:
    """Split a reduction into ``factor`` partial results per element, each of every ``factor``-th step or, ``blocked``,
    of one piece of them, and reduce those."""
    found = statements_for(kernel, tensor)
    update = found[-1]
    if not update.reduce:
        raise PlacementError(f"rfactor of {tensor.name!r}: it is not a reduction")
    reduced = update.iters[tensor.rank :]
    if not 0 <= axis < len(reduced):
        names = ", ".join(f"{i} ({a.name})" for i, a in enumerate(reduced))
        raise FactorError(f"rfactor of {tensor.name!r}: there is no reduction axis {axis}; there are {names}")
    name = fresh_tensor_name(kernel, f"{tensor.name}.rf")
    partial = _partial_results(tensor, update, reduced, axis, factor, blocked, name)
    lane = Axis(f"{reduced[axis].name}.lane", DType.INT64, factor)
    one = Load(partial, _with_lane(tensor.axes, lane, blocked))
    rest = dataclasses.replace(update, iters=(*tensor.axes, lane), value=one)
    made = statements_of(partial)
    stages = (*stage_tree(made, taken), *stage_tree((found[0], rest), taken))
    replaced = {s.name: f"{s.name} replaced" for s in found}
    tree = insert_beside(_renamed(kernel.tree, replaced), replaced[update.name], stages, after=True)
    tree = remove_statements(tree, frozenset(replaced.values()))
    new = with_statements(kernel, {**{s.name: s for s in made}, rest.name: rest})
    return dataclasses.replace(new, tree=with_root_storage(tree, partial)), partial


def _with_lane(axes: tuple[Axis, ...], lane: Axis, blocked: bool) -> tuple[Axis, ...]:
    """The axes of partial results."""
    return (lane, *axes) if blocked else (*axes, lane)


def _partial_results(
    tensor: Tensor, update: Statement, reduced: tuple[Axis, ...], axis: int, factor: int, blocked: bool, name: str
) -> Tensor:
    old = reduced[axis]
    count = as_dim(simplify((wrap(old.extent) + (factor - 1)) // factor))
    outer = Axis(f"{old.name}.outer", DType.INT64, count)
    lane = Axis(f"{old.name}.lane", DType.INT64, factor)
    position = lane * wrap(count) + outer if blocked else outer * factor + lane
    value = substitute(update.value, {old: position})
    if simplify(wrap(old.extent) % factor) != const(0):
        value = select(compare("lt", position, old.extent), value, reduce_identity(update.reduce, tensor.dtype))
    axes = tuple(outer if a is old else a for a in reduced)
    body = Reduce(update.reduce, value, axes)
    mine = _with_lane(tensor.axes, lane, blocked)
    return Tensor(name, tuple(axis.extent for axis in mine), tensor.dtype, mine, body, tensor.source)
