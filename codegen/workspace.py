"""Where the WORKSPACE buffers of a kernel lie within its scratch memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.expr import Expr, maximum, simplify, wrap
from polycomp.loops import Alloc, Buffer, For, LoopKind, LoopNest, Scope, Stmt
from polycomp.loops.program import Workspace
from polycomp.loops.visit import inner
from polycomp.target import ALIGNMENT
from polycomp.te import Dim

THREAD_ALIGNMENT = 128  # neighbouring threads never share a pair of cache lines


@dataclasses.dataclass(frozen=True)
class WorkspacePlan:
    """Byte offsets of buffers: from the start of the shared part, or of the thread's own for those in ``private``."""

    offsets: Mapping[Buffer, Dim]
    private: frozenset[Buffer]
    workspace: Workspace


def plan_workspace(nest: LoopNest) -> WorkspacePlan:
    """Lay out a nest's WORKSPACE allocations; those that never exist together share memory."""
    offsets: dict[Buffer, Dim] = {}
    private: set[Buffer] = set()
    shared, per_thread = _place(nest.body, False, 0, 0, offsets, private)
    workspace = Workspace(_rounded(shared, ALIGNMENT), _rounded(per_thread, THREAD_ALIGNMENT))
    return WorkspacePlan(offsets, frozenset(private), workspace)


def _place(
    stmt: Stmt, parallel: bool, shared: Dim, per_thread: Dim, offsets: dict[Buffer, Dim], private: set[Buffer]
) -> tuple[Dim, Dim]:
    """Place the allocations in ``stmt`` above what is in use; returns the highest ends (shared, per thread)."""
    if isinstance(stmt, Alloc) and stmt.buffer.scope is Scope.WORKSPACE:
        offsets[stmt.buffer] = per_thread if parallel else shared
        size = _rounded(byte_size(stmt.buffer), ALIGNMENT)
        if parallel:
            private.add(stmt.buffer)
            per_thread = _plus(per_thread, size)
        else:
            shared = _plus(shared, size)
    inside = parallel or (isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL)
    ends = [_place(child, inside, shared, per_thread, offsets, private) for child in inner(stmt)]
    for shared_end, thread_end in ends:
        shared, per_thread = _largest(shared, shared_end), _largest(per_thread, thread_end)
    return shared, per_thread


def byte_size(buffer: Buffer) -> Dim:
    """Bytes that the elements of ``buffer`` take."""
    size: Dim = buffer.dtype.bytes
    for dim in buffer.shape:
        size = size * dim
    return _plain(size)


def _plain(size: Dim) -> Dim:
    if isinstance(size, int):
        return size
    simplified: Expr = simplify(size)
    value = getattr(simplified, "value", None)
    return simplified if value is None else int(value)


def _plus(a: Dim, b: Dim) -> Dim:
    return _plain(a + b)


def _rounded(size: Dim, alignment: int) -> Dim:
    return _plain((size + (alignment - 1)) // alignment * alignment)


def _largest(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return _plain(maximum(wrap(a), wrap(b)))
