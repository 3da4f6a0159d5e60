"""Whether a schedule tree is well formed, before any question of legality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from polycomp.expr import Expr, Var
from polycomp.poly.accesses import reads_of
from polycomp.poly.kernel import Kernel
from polycomp.poly.leaves import storage_of, variables_in
from polycomp.poly.tree import Allocate, Leaf, Loop, Node
from polycomp.poly.violations import Violation, ViolationKind


def structure_violation(kernel: Kernel) -> Violation | None:
    """The first flaw in the form of the kernel's tree, or None."""
    return next(_flaws(kernel), None)


def _flaws(kernel: Kernel) -> Iterator[Violation]:
    sizes = frozenset((*kernel.sizes, *kernel.ranges))
    used: set[Var] = set()
    for node, path, positions in _positioned(kernel.tree, (), ()):
        scope = sizes | {n.var for n in path if isinstance(n, Loop)}
        if isinstance(node, Loop):
            yield from _loop_flaws(node, scope, used)
            used.add(node.var)
        elif isinstance(node, Allocate):
            yield from _allocate_flaws(node, scope, kernel)
        else:
            yield from _leaf_flaws(node, scope, path, positions, kernel)


def _positioned(
    nodes: tuple[Node, ...], path: tuple[Node, ...], positions: tuple[int, ...]
) -> Iterator[tuple[Node, tuple[Node, ...], tuple[int, ...]]]:
    for i, node in enumerate(nodes):
        yield node, path, (*positions, i)
        if not isinstance(node, Leaf):
            yield from _positioned(node.body, (*path, node), (*positions, i))


def _loop_flaws(loop: Loop, scope: frozenset[Var], used: set[Var]) -> Iterator[Violation]:
    if loop.var in used or loop.var in scope:
        yield _flaw(f"two loops of the tree have the variable {loop.var.name}")
    if loop.kind.is_expanded and not isinstance(loop.extent, int):
        yield _flaw(f"the {loop.kind.value} loop {loop.var.name} has the extent {loop.extent}, which is not a constant")
    yield from _unknown(f"the extent of loop {loop.var.name}", (loop.extent,), scope)


def _allocate_flaws(node: Allocate, scope: frozenset[Var], kernel: Kernel) -> Iterator[Violation]:
    name = node.tensor.name
    if node.tensor in kernel.inputs:
        yield _flaw(f"the input {name} cannot be allocated")
    if len(node.origin) != node.tensor.rank or len(node.shape) != node.tensor.rank:
        yield _flaw(f"the buffer of {name} has not the tensor's rank {node.tensor.rank}")
    if node.folds and (len(node.folds) != node.tensor.rank or min(node.folds) < 0):
        yield _flaw(f"the buffer of {name} is folded to {node.folds}, which does not fit its dimensions")
    yield from _unknown(f"the buffer of {name}", (*node.origin, *node.shape), scope)


def _leaf_flaws(
    leaf: Leaf, scope: frozenset[Var], path: tuple[Node, ...], positions: tuple[int, ...], kernel: Kernel
) -> Iterator[Violation]:
    statement = kernel.statements.get(leaf.statement)
    if statement is None:
        yield _flaw(f"the tree executes {leaf.statement}, which is no statement of the kernel")
        return
    if len(leaf.point) != len(statement.iters):
        yield _flaw(f"{leaf.statement} has {len(statement.iters)} iterators but {len(leaf.point)} values are given")
    if statement.indices != statement.iters[: statement.tensor.rank]:
        yield _flaw(f"{leaf.statement} does not write the element at its first {statement.tensor.rank} iterators")
    yield from _unknown(leaf.statement, (*leaf.point, *leaf.guards), scope)
    for tensor in dict.fromkeys((statement.tensor, *(a.tensor for a in reads_of(statement)))):
        if tensor not in kernel.inputs and all(s.tensor is not tensor for s in kernel.statements.values()):
            yield _flaw(f"{leaf.statement} uses {tensor.name}, which no statement of the kernel computes")
        elif storage_of(tensor, path, positions, kernel) is None:
            yield _flaw(f"{leaf.statement} uses {tensor.name}, which is not stored there: allocate it around the loop")


def _unknown(what: str, exprs: Iterable[Expr | int], scope: frozenset[Var]) -> Iterator[Violation]:
    missing = sorted(v.name for v in variables_in(exprs) - scope)
    if missing:
        yield _flaw(f"{what} uses {missing[0]}, which no enclosing loop or size defines")


def _flaw(message: str) -> Violation:
    return Violation(ViolationKind.STRUCTURE, message)
