"""Prefetch hints of a schedule as statements: one per cache line that a later iteration will use."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from polycomp.expr import Expr, Var, const, loads, minimum, substitute
from polycomp.loops.ir import Buffer, Prefetch
from polycomp.loops.place import Place
from polycomp.poly.bounds import Region, required_region
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.tree import Ahead, Leaf, Loop, walk
from polycomp.target import CACHE_LINE_BYTES
from polycomp.te import Dim, Tensor

_MOST_LINES = 16  # more hints than that per iteration cost more than they bring
_USUAL_EXTENT = 8  # what an extent that is not known is taken to be when lines are dealt out


def prefetches(loop: Loop, ahead: Ahead, kernel: Kernel, place: Place) -> list[Prefetch]:
    """Statements that ask for what ``loop`` (or ``ahead.around``) reads or writes of the tensor ``ahead.distance``
    iterations later: for all of it, or for an iteration's share.

    None when that is not a box of a few cache lines, or of one piece of memory.
    """
    if ahead.around is not None:
        return _shares(_loops_between(kernel, ahead.around, loop), ahead, kernel, place)
    box = _box(loop, ahead, kernel)
    steps = [list(_steps(part, d == len(box) - 1, place.buffer)) for d, part in enumerate(box)]
    lines = list(itertools.islice(itertools.product(*steps), _MOST_LINES + 1))
    if len(lines) > _MOST_LINES:
        return []
    writes = any(s.tensor is ahead.tensor for s in _statements(loop, kernel))
    return [Prefetch(place.buffer, place.position(line), writes) for line in lines]


def _box(loop: Loop, ahead: Ahead, kernel: Kernel) -> Region:
    """What ``loop`` reads and writes of the tensor in ``ahead.distance`` iterations."""
    inner: dict[Var, Dim] = {}
    indices: list[tuple[Expr, ...]] = []
    later = {loop.var: loop.var + ahead.distance}
    for node, path in walk(loop.body):
        if isinstance(node, Leaf):
            statement = kernel.statements[node.statement]
            values: dict[Var, Expr] = dict(zip(statement.iters, node.point, strict=True))
            for used in _uses(statement, ahead.tensor):
                indices.append(tuple(substitute(substitute(i, values), later) for i in used))
                inner.update({n.var: n.extent for n in path if isinstance(n, Loop)})
    return required_region(indices, inner, kernel.ranges)


def _statements(loop: Loop, kernel: Kernel) -> Iterator[Statement]:
    """The statements that ``loop`` executes."""
    yield from (kernel.statements[n.statement] for n, _ in walk(loop.body) if isinstance(n, Leaf))


def _uses(statement: Statement, tensor: Tensor) -> Iterator[tuple[Expr, ...]]:
    """Where the statement reads and writes ``tensor``."""
    yield from (load.indices for load in loads(statement.value) if load.source is tensor)
    if statement.tensor is tensor:
        yield statement.indices


def _steps(part: tuple[Expr, Dim] | None, last: bool, buffer: Buffer) -> Iterator[Expr]:
    """The positions to ask for along one dimension: every one, or one per cache line in the last."""
    if part is None or not isinstance(part[1], int):
        return
    step = max(1, CACHE_LINE_BYTES // buffer.dtype.bytes) if last else 1
    for position in range(0, part[1], step):
        yield part[0] + const(position)


def _loops_between(kernel: Kernel, outer: Var, loop: Loop) -> list[Loop]:
    """The loops from that over ``outer`` down to ``loop``, both included; none when it has been replaced since."""
    for node, path in walk(kernel.tree):
        if isinstance(node, Loop) and node.var == loop.var:
            loops = [*(n for n in path if isinstance(n, Loop)), node]
            first = next((p for p, n in enumerate(loops) if n.var == outer), None)
            if first is not None:
                return loops[first:]
    return []


def _shares(loops: Sequence[Loop], ahead: Ahead, kernel: Kernel, place: Place) -> list[Prefetch]:
    """An iteration's share: the lines are dealt out in order to the iterations, from the first of ``distance``
    iterations of the outermost of ``loops`` to the last of the innermost."""
    if not loops:
        return []
    outer, *inside = loops
    buffer, box = place.buffer, _box(outer, ahead, kernel)
    nbytes = _piece_bytes(box, buffer)
    if nbytes is None:
        return []
    share: Expr = outer.var % ahead.distance
    count = ahead.distance
    for loop in inside:
        share = share * loop.extent + loop.var
        count *= loop.extent if isinstance(loop.extent, int) else _USUAL_EXTENT
    lines = -(-nbytes // CACHE_LINE_BYTES)
    each = -(-lines // count)
    if each > _MOST_LINES:
        return []
    first = place.position([low for low, _ in filter(None, box)])
    number = [minimum(share * each + i, lines - 1) for i in range(each)]
    offsets = [n * (CACHE_LINE_BYTES // buffer.dtype.bytes) for n in number]
    return [Prefetch(buffer, (*first[:-1], first[-1] + offset), near=False) for offset in offsets]


def _piece_bytes(box: Region, buffer: Buffer) -> int | None:
    """The size of a box that is one piece of memory, of constant size; else None."""
    extents = [part[1] for part in box if part is not None]
    if len(extents) < len(box) or not extents or not all(isinstance(e, int) for e in extents):
        return None
    first = next((d for d, e in enumerate(extents) if e != 1), len(extents) - 1)
    if any(e != n for e, n in zip(extents[first + 1 :], buffer.shape[first + 1 :], strict=True)):
        return None
    return math.prod(e for e in extents if isinstance(e, int)) * buffer.dtype.bytes
