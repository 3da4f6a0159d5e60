"""Random kernels, and random rewrites of their trees that may or may not be legal."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from polycomp import te
from polycomp.dtypes import DType
from polycomp.expr import CheckedIndex, Expr, Var, compare, const, eq, minimum, ne, select, simplify, substitute, wrap
from polycomp.poly.accesses import reads_of
from polycomp.poly.bounds import required_region
from polycomp.poly.kernel import Kernel, Statement, statements_of
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope, walk
from polycomp.te import Dim, Tensor

Nodes = tuple[Node, ...]


def kernel_of(outputs: Sequence[Tensor], ranges: Mapping[Var, tuple[int, int]] | None = None) -> Kernel:
    """A kernel that computes one tensor after the other, all stored whole."""
    order = te.topological_order(outputs)
    inputs = tuple(t for t in order if t.body is None)
    statements = {s.name: s for t in order for s in statements_of(t)}
    tree: Nodes = tuple(nest(s) for s in statements.values())
    for tensor in reversed(order):
        if tensor.body is not None and tensor not in outputs:
            tree = (Allocate(tensor, Scope.WORKSPACE, (const(0),) * tensor.rank, tensor.shape, tree),)
    return Kernel("test", inputs, tuple(outputs), statements, tree, dict(ranges or {}))


def nest(statement: Statement, suffix: str = "") -> Node:
    """The statement in a loop per iterator, named ``STATEMENT.ITERATOR``."""
    variables = [Var(f"{statement.name}.{a.name}{suffix}") for a in statement.iters]
    node: Node = Leaf(statement.name, tuple(variables))
    for var, axis in reversed(list(zip(variables, statement.iters, strict=True))):
        node = Loop(var, axis.extent, LoopKind.SERIAL, (node,))
    return node


# Random kernels


def random_kernel(rng: random.Random) -> Kernel:
    """One to three stages on small tensors; now and then with a symbolic size."""
    ranges: dict[Var, tuple[int, int]] = {}
    sizes: list[Dim] = [rng.randint(1, 6) for _ in range(2)]
    if rng.random() < 0.2:
        size = Var("N")
        ranges[size] = (rng.randint(0, 1), 5)
        sizes[rng.randrange(2)] = size
    tensor = te.placeholder(sizes, "float64", "A")
    for index in range(rng.randint(1, 3)):
        stage = rng.choice(_STAGES)
        tensor = stage(rng, tensor, f"T{index}")
    return kernel_of((tensor,), ranges)


def _elementwise(rng: random.Random, x: Tensor, name: str) -> Tensor:
    scale = float(rng.randint(2, 5))
    if x.rank == 1:
        return te.compute(x.shape, lambda i: x[i] * scale + 1.0, name)
    return te.compute(x.shape, lambda i, j: x[i, j] * scale + 1.0, name)


def _stencil(rng: random.Random, x: Tensor, name: str) -> Tensor:
    shift = rng.choice([-1, 1, 2])
    extent = wrap(x.shape[-1])

    def at(i: Expr) -> Expr:
        return (i + shift < extent) if shift > 0 else (i + shift >= 0)

    if x.rank == 1:
        return te.compute(x.shape, lambda i: x[i] + select(at(i), x[i + shift], const(7.0, "float64")), name)
    return te.compute(x.shape, lambda i, j: x[i, j] + select(at(j), x[i, j + shift], const(7.0, "float64")), name)


def _clamped(rng: random.Random, x: Tensor, name: str) -> Tensor:
    last = wrap(x.shape[0]) - 1
    if x.rank == 1:
        return te.compute(x.shape, lambda i: x[i] - x[minimum(i + 1, last)], name)
    return te.compute(x.shape, lambda i, j: x[i, j] - x[minimum(i + 1, last), j], name)


def _transpose(rng: random.Random, x: Tensor, name: str) -> Tensor:
    if x.rank == 1:
        return te.compute(x.shape, lambda i: x[i] * 3.0, name)
    return te.compute((x.shape[1], x.shape[0]), lambda i, j: x[j, i] * 3.0, name)


def _row_sum(rng: random.Random, x: Tensor, name: str) -> Tensor:
    k = te.reduce_axis(x.shape[-1], "k")
    if x.rank == 1:
        return te.compute((2,), lambda i: te.sum(x[k], axis=k), name)
    return te.compute((x.shape[0],), lambda i: te.sum(x[i, k], axis=k), name)


def _matmul(rng: random.Random, x: Tensor, name: str) -> Tensor:
    k = te.reduce_axis(x.shape[-1], "k")
    weights = te.placeholder((x.shape[-1], rng.randint(1, 4)), "float64", f"{name}.w")
    if x.rank == 1:
        return te.compute((weights.shape[1],), lambda i: te.sum(x[k] * weights[k, i], axis=k), name)
    return te.compute((x.shape[0], weights.shape[1]), lambda i, j: te.sum(x[i, k] * weights[k, j], axis=k), name)


def _window(rng: random.Random, x: Tensor, name: str) -> Tensor:
    k, size = te.reduce_axis(2, "k"), x.shape[-1]
    if not isinstance(size, int) or size < 3:
        return _elementwise(rng, x, name)
    shape = (*x.shape[:-1], (size - 2) // 2 + 1)
    if x.rank == 1:
        return te.compute(shape, lambda i: te.sum(x[i * 2 + k], axis=k), name)
    return te.compute(shape, lambda i, j: te.sum(x[i, j * 2 + k], axis=k), name)


def _gather(rng: random.Random, x: Tensor, name: str) -> Tensor:
    which = te.placeholder((3,), DType.INT64, f"{name}.at")
    size = x.shape[0]
    if not isinstance(size, int):
        return _elementwise(rng, x, name)
    if x.rank == 1:
        return te.compute((3,), lambda i: x[CheckedIndex(which[i] % size, const(size))] * 2.0, name)
    return te.compute((3, x.shape[1]), lambda i, j: x[CheckedIndex(which[i] % size, const(size)), j] * 2.0, name)


_STAGES: Sequence[Callable[[random.Random, Tensor, str], Tensor]] = (
    _elementwise, _elementwise, _stencil, _clamped, _transpose, _row_sum, _matmul, _matmul, _window, _gather,
)  # fmt: skip


# Random rewrites. Each takes a node's place and returns what replaces it, or None where it does not apply.

Rewrite = Callable[[random.Random, Kernel, Node, str], Nodes | None]


def mutated(rng: random.Random, kernel: Kernel, steps: int, rewrites: Sequence[Rewrite] | None = None) -> Kernel:
    """``kernel`` after some random rewrites."""
    for step in range(steps):
        kernel = _mutate(rng, kernel, f".{step}", rng.choice(rewrites or REWRITES))
    return kernel


def _mutate(rng: random.Random, kernel: Kernel, fresh: str, rewrite: Rewrite) -> Kernel:
    places = [node for node, _ in walk(kernel.tree)]
    for node in rng.sample(places, len(places)):
        new = rewrite(rng, kernel, node, fresh)
        if new is not None:
            return dataclasses.replace(kernel, tree=replaced(kernel.tree, node, new))
    return kernel


def replaced(tree: Nodes, old: Node, new: Nodes) -> Nodes:
    """``tree`` with the node that is ``old`` replaced."""
    result: list[Node] = []
    for node in tree:
        if node is old:
            result.extend(new)
        elif isinstance(node, Leaf):
            result.append(node)
        else:
            result.append(dataclasses.replace(node, body=replaced(node.body, old, new)))
    return tuple(result)


def substituted(nodes: Nodes, values: Mapping[Var, Expr], guards: tuple[Expr, ...] = ()) -> Nodes:
    """``nodes`` with loop variables replaced, and guards added to all leaves."""
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, Leaf):
            point = tuple(simplify(substitute(p, values)) for p in node.point)
            result.append(Leaf(node.statement, point, (*(substitute(g, values) for g in node.guards), *guards)))
        elif isinstance(node, Loop):
            extent = node.extent if isinstance(node.extent, int) else substitute(node.extent, values)
            result.append(dataclasses.replace(node, extent=extent, body=substituted(node.body, values, guards)))
        else:
            origin = tuple(substitute(o, values) for o in node.origin)
            result.append(dataclasses.replace(node, origin=origin, body=substituted(node.body, values, guards)))
    return tuple(result)


def renamed(nodes: Nodes, suffix: str) -> Nodes:
    """A copy with new loop variables."""
    values = {n.var: Var(n.var.name + suffix) for n, _ in walk(nodes) if isinstance(n, Loop)}
    return _with_variables(substituted(nodes, values), values)


def _with_variables(nodes: Nodes, names: Mapping[Var, Var]) -> Nodes:
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, Loop):
            node = dataclasses.replace(node, var=names.get(node.var, node.var), body=_with_variables(node.body, names))
        elif isinstance(node, Allocate):
            node = dataclasses.replace(node, body=_with_variables(node.body, names))
        result.append(node)
    return tuple(result)


def interchange(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop) or len(node.body) != 1 or not isinstance(node.body[0], Loop):
        return None
    inner = node.body[0]
    if not isinstance(inner.extent, int) and node.var.name in str(inner.extent):
        return None
    return (dataclasses.replace(inner, body=(dataclasses.replace(node, body=inner.body),)),)


def split(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop):
        return None
    factor = rng.randint(2, 3)
    outer, inner = Var(f"{node.var.name}o{fresh}"), Var(f"{node.var.name}i{fresh}")
    value = outer * factor + inner
    exact = isinstance(node.extent, int) and node.extent % factor == 0
    style = rng.choice(["guard", "guard", "minimum", "none"]) if not exact else "none"
    guards = (compare("lt", value, wrap(node.extent)),) if style == "guard" else ()
    inner_extent: Dim = minimum(wrap(node.extent) - outer * factor, factor) if style == "minimum" else factor
    body = substituted(node.body, {node.var: value}, guards)
    count = -(-node.extent // factor) if isinstance(node.extent, int) else (node.extent + (factor - 1)) // factor
    return (Loop(outer, count, node.kind, (Loop(inner, inner_extent, LoopKind.SERIAL, body),)),)


def fuse_loops(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop) or len(node.body) != 1 or not isinstance(node.body[0], Loop):
        return None
    inner = node.body[0]
    if not isinstance(node.extent, int) or not isinstance(inner.extent, int) or inner.extent < 2:
        return None
    fused = Var(f"f{fresh}")
    body = substituted(inner.body, {node.var: fused // inner.extent, inner.var: fused % inner.extent})
    return (Loop(fused, node.extent * inner.extent, node.kind, body),)


def fission(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop) or len(node.body) < 2:
        return None
    at = rng.randrange(1, len(node.body))
    first = dataclasses.replace(node, body=node.body[:at])
    (second,) = renamed((dataclasses.replace(node, body=node.body[at:]),), f"b{fresh}")
    return (first, second)


def merge(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Fuse two neighbouring loops of the same extent into one that executes both bodies."""
    if isinstance(node, Leaf):
        return None
    pairs = [
        (i, a, b)
        for i, (a, b) in enumerate(zip(node.body, node.body[1:], strict=False))
        if isinstance(a, Loop) and isinstance(b, Loop) and a.extent == b.extent
    ]
    if not pairs:
        return None
    i, a, b = rng.choice(pairs)
    both = dataclasses.replace(a, body=(*a.body, *substituted(b.body, {b.var: a.var})))
    return (dataclasses.replace(node, body=(*node.body[:i], both, *node.body[i + 2 :])),)


def swap(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if isinstance(node, Leaf) or len(node.body) < 2 or rng.random() < 0.5:
        return None
    i = rng.randrange(len(node.body) - 1)
    a, b = node.body[i : i + 2]
    return (dataclasses.replace(node, body=(*node.body[:i], b, a, *node.body[i + 2 :])),)


def change_kind(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop):
        return None
    constant = isinstance(node.extent, int)
    kinds = [LoopKind.PARALLEL, LoopKind.BLOCK]
    if constant:
        kinds += [LoopKind.VECTOR, LoopKind.UNROLL, LoopKind.THREAD]
    return (dataclasses.replace(node, kind=rng.choice(kinds)),)


def reverse_loop(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop):
        return None
    var = Var(f"{node.var.name}r{fresh}")
    last = wrap(node.extent) - 1
    return (dataclasses.replace(node, var=var, body=substituted(node.body, {node.var: last - var})),)


def peel(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Loop) or not isinstance(node.extent, int) or node.extent < 2:
        return None
    at = rng.randrange(1, node.extent)
    first = dataclasses.replace(node, extent=at)
    rest = dataclasses.replace(node, extent=node.extent - at, body=substituted(node.body, {node.var: node.var + at}))
    return (first, *renamed((rest,), f"p{fresh}"))


def move_producer(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Compute a whole producer again in each iteration of the loop after it."""
    if isinstance(node, Leaf) or len(node.body) < 2:
        return None
    i = rng.randrange(len(node.body) - 1)
    producer, consumer = node.body[i : i + 2]
    if not isinstance(consumer, Loop):
        return None
    moved = dataclasses.replace(consumer, body=(producer, *consumer.body))
    return (dataclasses.replace(node, body=(*node.body[:i], moved, *node.body[i + 2 :])),)


def sink_storage(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Allocate inside of the only loop of the body, instead of around it."""
    if not isinstance(node, Allocate) or len(node.body) != 1 or not isinstance(node.body[0], Loop):
        return None
    loop = node.body[0]
    return (dataclasses.replace(loop, body=(dataclasses.replace(node, body=loop.body),)),)


def resize_storage(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Allocate):
        return None
    d = rng.randrange(len(node.shape))
    shape, origin = list(node.shape), list(node.origin)
    if rng.random() < 0.5:
        shape[d] = shape[d] + rng.choice([-1, 1])
    else:
        origin[d] = origin[d] + rng.choice([-1, 1])
    return (dataclasses.replace(node, shape=tuple(shape), origin=tuple(origin)),)


def fold_storage(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Keep one dimension of a buffer modulo a small number."""
    if not isinstance(node, Allocate) or not node.shape:
        return None
    folds = [0] * len(node.shape)
    folds[rng.randrange(len(folds))] = rng.randint(1, 3)
    return (dataclasses.replace(node, folds=tuple(folds)),)


def drop_guard(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if not isinstance(node, Leaf) or not node.guards:
        return None
    i = rng.randrange(len(node.guards))
    return (dataclasses.replace(node, guards=(*node.guards[:i], *node.guards[i + 1 :])),)


def duplicate(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    if rng.random() < 0.5:
        return None
    return (node, *renamed((node,), f"d{fresh}"))


def guard_init(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Move what stands before a loop into its first iteration."""
    if isinstance(node, Leaf) or len(node.body) < 2:
        return None
    i = rng.randrange(len(node.body) - 1)
    first, loop = node.body[i : i + 2]
    if not isinstance(loop, Loop):
        return None
    guarded = substituted((first,), {}, (eq(loop.var, const(0)),))
    moved = dataclasses.replace(loop, body=(*guarded, *loop.body))
    return (dataclasses.replace(node, body=(*node.body[:i], moved, *node.body[i + 2 :])),)


def odd_guard(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """A guard that is no simple comparison, and may leave something out."""
    if not isinstance(node, Loop):
        return None
    at = rng.randint(0, 7)
    guard = rng.choice([ne(node.var, const(at)), (node.var < at) | (node.var > at), (node.var < at) | (node.var >= at)])
    return (dataclasses.replace(node, body=substituted(node.body, {}, (guard,))),)


def shift_or_stretch(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Run over other points than those meant."""
    if not isinstance(node, Loop) or rng.random() < 0.5:
        return None
    value = rng.choice([node.var * 2, node.var + 1, node.var - 1, node.var // 2, node.var % 2])
    return (dataclasses.replace(node, body=substituted(node.body, {node.var: value})),)


def overlap(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Two nested loops whose digits overlap, so that some points come twice."""
    if not isinstance(node, Loop) or not isinstance(node.extent, int) or node.extent < 3:
        return None
    outer, inner = Var(f"{node.var.name}x{fresh}"), Var(f"{node.var.name}y{fresh}")
    value = outer + inner
    body = substituted(node.body, {node.var: value})
    return (Loop(outer, node.extent - 1, node.kind, (Loop(inner, 2, LoopKind.SERIAL, body),)),)


def compute_in_tile(rng: random.Random, kernel: Kernel, node: Node, fresh: str) -> Nodes | None:
    """Inside of a loop, store and compute just what the loop's body reads of some tensor."""
    if not isinstance(node, Loop):
        return None
    candidates = [t for t in _computed(kernel) if list(_read_points(kernel, node.body, t))]
    if not candidates:
        return None
    tensor = rng.choice(candidates)
    points = list(_read_points(kernel, node.body, tensor))
    inner = {n.var: n.extent for n, _ in walk(node.body) if isinstance(n, Loop)}
    ranges = {v: (r[0], r[1]) for v, r in kernel.ranges.items()}
    for loop, _ in walk(kernel.tree):
        if isinstance(loop, Loop):
            ranges[loop.var] = (0, loop.extent - 1 if isinstance(loop.extent, int) else None)
    region = required_region(points, inner, ranges)
    if None in region:
        return None
    boxes = [box for box in region if box is not None]
    origin = tuple(o for o, _ in boxes)
    shape = tuple(n for _, n in boxes)
    own = [s for s in kernel.statements.values() if s.tensor is tensor]
    guarded = rng.random() < 0.8
    stages = tuple(_tile_nest(s, origin, shape, fresh, guarded) for s in own)
    return (dataclasses.replace(node, body=(Allocate(tensor, Scope.WORKSPACE, origin, shape, (*stages, *node.body)),)),)


def _computed(kernel: Kernel) -> list[Tensor]:
    return list(dict.fromkeys(s.tensor for s in kernel.statements.values() if s.tensor not in kernel.outputs))


def _read_points(kernel: Kernel, nodes: Nodes, tensor: Tensor) -> Iterator[tuple[Expr, ...]]:
    for node, _ in walk(nodes):
        if isinstance(node, Leaf):
            statement = kernel.statements[node.statement]
            values: dict[Var, Expr] = dict(zip(statement.iters, node.point, strict=True))
            for access in reads_of(statement):
                if access.tensor is tensor and not access.unknowns:
                    yield tuple(substitute(i, values) for i in access.indices)


def _tile_nest(statement: Statement, origin: Sequence[Expr], shape: Sequence[Dim], fresh: str, guarded: bool) -> Node:
    rank = len(origin)
    variables = [Var(f"{statement.name}.{a.name}t{fresh}") for a in statement.iters]
    spatial = [o + v for o, v in zip(origin, variables, strict=False)]
    limits = zip(spatial, statement.tensor.shape, strict=True)
    guards = tuple(g for p, n in limits for g in (compare("ge", p, 0), compare("lt", p, wrap(n))))
    node: Node = Leaf(statement.name, (*spatial, *variables[rank:]), guards if guarded else ())
    extents = [*shape, *(a.extent for a in statement.iters[rank:])]
    for var, extent in reversed(list(zip(variables, extents, strict=True))):
        node = Loop(var, extent, LoopKind.SERIAL, (node,))
    return node


def drop_unread(kernel: Kernel) -> Kernel:
    """Without storage in which nothing is read any more, and what is computed into it."""
    for node, _ in walk(kernel.tree):
        if isinstance(node, Allocate):
            found = any(True for _ in _read_in(kernel, node.body, node.tensor))
            if not found:
                own = [s.name for s in kernel.statements.values() if s.tensor is node.tensor]
                body = _without(node.body, own, node.tensor)
                return drop_unread(dataclasses.replace(kernel, tree=replaced(kernel.tree, node, body)))
    return kernel


def _read_in(kernel: Kernel, nodes: Nodes, tensor: Tensor) -> Iterator[Leaf]:
    for node in nodes:
        if isinstance(node, Leaf):
            if any(a.tensor is tensor for a in reads_of(kernel.statements[node.statement])):
                yield node
        elif not (isinstance(node, Allocate) and node.tensor is tensor):
            yield from _read_in(kernel, node.body, tensor)


def _without(nodes: Nodes, statements: Sequence[str], tensor: Tensor) -> Nodes:
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, Leaf):
            if node.statement not in statements:
                result.append(node)
        elif isinstance(node, Allocate) and node.tensor is tensor:
            result.append(node)
        else:
            body = _without(node.body, statements, tensor)
            if body:
                result.append(dataclasses.replace(node, body=body))
    return tuple(result)


REWRITES: Sequence[Rewrite] = (
    interchange, interchange, split, split, split, fuse_loops, fission, merge, merge, swap, change_kind, change_kind,
    reverse_loop, peel, move_producer, sink_storage, resize_storage, drop_guard, duplicate, guard_init,
    compute_in_tile, compute_in_tile, compute_in_tile, odd_guard, shift_or_stretch, overlap, fold_storage,
)  # fmt: skip


def random_schedule(rng: random.Random) -> Kernel:
    """A random kernel under a random tree."""
    kernel = random_kernel(rng)
    kernel = mutated(rng, kernel, rng.randint(2, 8))
    return drop_unread(kernel) if rng.random() < 0.7 else kernel
