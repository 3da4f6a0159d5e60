"""From a scheduled Kernel to a LoopNest: buffers, explicit loops, and the passes that make them fast."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from polycomp.expr import Expr, Load, Var, const, substitute, transform, wrap
from polycomp.loops.guards import hoist_guards
from polycomp.loops.ir import Alloc, Buffer, For, If, LoopNest, Stmt, Store
from polycomp.loops.partition import partition, unswitch
from polycomp.loops.pipeline import expand_pipelines
from polycomp.loops.place import Place
from polycomp.loops.prefetch import prefetches
from polycomp.loops.quotients import bind_quotients
from polycomp.loops.threads import place_barriers, share_out_registers
from polycomp.loops.visit import block, simplified
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Allocate, Leaf, Loop, Node, Scope
from polycomp.te import Tensor

Pass = Callable[[LoopNest, Kernel], LoopNest]


def lower_kernel(kernel: Kernel, observe: Callable[[str, LoopNest], None] | None = None) -> LoopNest:
    """The loop nest that executes ``kernel``; ``observe`` sees it after each pass, by name."""
    nest = build_nest(kernel)
    for name, run in PASSES.items():
        nest = run(nest, kernel)
        if observe is not None:
            observe(name, nest)
    return nest


def build_nest(kernel: Kernel) -> LoopNest:
    """The tree as explicit loops, guards around each store, nothing simplified."""
    # Inputs may be arrays of the caller's, which numpy aligns to less than a vector.
    inputs = tuple(_argument(t, t.dtype.bytes) for t in kernel.inputs)
    outputs = tuple(_argument(t, 64) for t in kernel.outputs)
    places: dict[Tensor, Place] = {}
    for tensor, buffer in zip((*kernel.inputs, *kernel.outputs), (*inputs, *outputs), strict=True):
        places[tensor] = Place(buffer, tuple(const(0) for _ in tensor.shape))
    body = _lower_nodes(kernel.tree, kernel, places)
    sources = dict.fromkeys(s for st in kernel.statements.values() for s in st.source.split(";") if s)
    return LoopNest(kernel.name, kernel.sizes, inputs, outputs, body, tuple(sources))


def _argument(tensor: Tensor, alignment: int) -> Buffer:
    return Buffer(identifier(tensor.name), tensor.dtype, tensor.shape, Scope.ARGUMENT, alignment)


def identifier(name: str) -> str:
    """``name`` with everything but letters, digits, dots and underscores replaced, so that it is a symbol anywhere."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name) or "_"


def _lower_nodes(nodes: tuple[Node, ...], kernel: Kernel, places: Mapping[Tensor, Place]) -> Stmt:
    return block([_lower_node(n, kernel, places) for n in nodes])


def _lower_node(node: Node, kernel: Kernel, places: Mapping[Tensor, Place]) -> Stmt:
    match node:
        case Loop():
            hints = [hint for ahead in node.prefetch for hint in prefetches(node, ahead, kernel, places[ahead.tensor])]
            body = block([*hints, _lower_nodes(node.body, kernel, places)])
            return For(node.var, const(0), wrap(node.extent), node.kind, body, node.stages)
        case Allocate():
            name, dtype = identifier(node.tensor.name), node.tensor.dtype
            buffer = Buffer(name, dtype, node.stored_shape, node.scope, swizzled=node.swizzled)
            inner = {**places, node.tensor: Place(buffer, node.origin, node.folds)}
            return Alloc(buffer, _lower_nodes(node.body, kernel, inner))
        case Leaf():
            return _lower_leaf(node, kernel, places)


def _lower_leaf(leaf: Leaf, kernel: Kernel, places: Mapping[Tensor, Place]) -> Stmt:
    statement = kernel.statements[leaf.statement]
    values: dict[Var, Expr] = dict(zip(statement.iters, leaf.point, strict=True))

    def relocate(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.source in places:
            return Load(places[e.source].buffer, places[e.source].position(e.indices))
        return None

    def change(e: Expr) -> Expr:
        return transform(substitute(e, values), relocate)

    place = places[statement.tensor]
    indices = place.position([change(i) for i in statement.indices])
    stmt: Stmt = Store(place.buffer, indices, change(statement.value), statement.reduce, statement.source)
    for guard in reversed(leaf.guards):
        stmt = If(guard, stmt)
    return stmt


def _simplify(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=simplified(nest.body, kernel.ranges))


def _hoist(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=hoist_guards(nest.body))


def _bind_quotients(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=bind_quotients(nest.body))


def _share_out_registers(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=share_out_registers(nest.body, kernel.ranges, nest.name))


def _expand_pipelines(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=simplified(expand_pipelines(nest.body), kernel.ranges))


def _place_barriers(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=place_barriers(nest.body))


def _partition(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=partition(nest.body, kernel.ranges))


def _unswitch(nest: LoopNest, kernel: Kernel) -> LoopNest:
    return dataclasses.replace(nest, body=unswitch(nest.body))


PASSES: Mapping[str, Pass] = {
    "simplify": _simplify,
    "bind-quotients": _bind_quotients,
    "partition": _partition,
    "simplify-parts": _simplify,
    "hoist": _hoist,
    "unswitch": _unswitch,
    "simplify-hoisted": _simplify,
    "share-out-registers": _share_out_registers,
    "expand-pipelines": _expand_pipelines,
    "place-barriers": _place_barriers,
}
"""The passes of :func:`lower_kernel`, in order."""
