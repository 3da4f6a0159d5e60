"""Prefetch hints of a schedule as statements: one per cache line that a later iteration will use."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from polycomp.expr import Expr, Var, const, loads, substitute
from polycomp.loops.ir import Buffer, Prefetch
from polycomp.loops.place import Place
from polycomp.poly.bounds import required_region
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.tree import Ahead, Leaf, Loop, walk
from polycomp.te import Dim, Tensor

_LINE_BYTES = 64
_MOST_LINES = 16  # more hints than that per iteration cost more than they bring


def prefetches(loop: Loop, ahead: Ahead, kernel: Kernel, place: Place) -> list[Prefetch]:
    """Statements that ask for what ``loop`` reads or writes of the tensor ``ahead.distance`` iterations later.

    None when that is not a box of a few cache lines.
    """
    buffer = place.buffer
    inner: dict[Var, Dim] = {}
    indices: list[tuple[Expr, ...]] = []
    writes = False
    later = {loop.var: loop.var + ahead.distance}
    for node, path in walk(loop.body):
        if isinstance(node, Leaf):
            statement = kernel.statements[node.statement]
            values: dict[Var, Expr] = dict(zip(statement.iters, node.point, strict=True))
            writes = writes or statement.tensor is ahead.tensor
            for used in _uses(statement, ahead.tensor):
                indices.append(tuple(substitute(substitute(i, values), later) for i in used))
                inner.update({n.var: n.extent for n in path if isinstance(n, Loop)})
    box = required_region(indices, inner, kernel.ranges)
    steps = [list(_steps(part, d == len(box) - 1, buffer)) for d, part in enumerate(box)]
    lines = list(itertools.islice(itertools.product(*steps), _MOST_LINES + 1))
    if len(lines) > _MOST_LINES:
        return []
    return [Prefetch(buffer, place.position(line), writes) for line in lines]


def _uses(statement: Statement, tensor: Tensor) -> Iterator[tuple[Expr, ...]]:
    """Where the statement reads and writes ``tensor``."""
    yield from (load.indices for load in loads(statement.value) if load.source is tensor)
    if statement.tensor is tensor:
        yield statement.indices


def _steps(part: tuple[Expr, Dim] | None, last: bool, buffer: Buffer) -> Iterator[Expr]:
    """The positions to ask for along one dimension: every one, or one per cache line in the last."""
    if part is None or not isinstance(part[1], int):
        return
    step = max(1, _LINE_BYTES // buffer.dtype.bytes) if last else 1
    for position in range(0, part[1], step):
        yield part[0] + const(position)
