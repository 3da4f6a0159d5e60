"""Shared memory of a thread block: arrays of the function, or offsets in what is asked for at the launch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from polycomp.codegen.cuda.groups import Groups
from polycomp.codegen.cuda.launches import Piece
from polycomp.errors import CompileError
from polycomp.expr import Const
from polycomp.loops import Alloc, Buffer, Scope, Store
from polycomp.loops.visit import walk
from polycomp.poly.tree import SWIZZLED_BYTES
from polycomp.target import Target

STATIC_BYTES = 48 * 1024
"""What a function's own arrays may take; more is asked for at the launch."""

_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class SharedMemory:
    """``bytes`` of a function's buffers; those in ``offsets`` lie in what is asked for at the launch, which begins at a
    multiple of ``alignment`` bytes."""

    bytes: int
    offsets: Mapping[Buffer, int]
    dynamic_bytes: int
    alignment: int

    @property
    def is_swizzled(self) -> bool:
        """Whether warpgroups may multiply what is in it."""
        return self.alignment > _ALIGNMENT


def plan_shared(piece: Piece, groups: Groups, kernel: str) -> SharedMemory:
    """Lay out a launch's shared memory. Nothing shares a place: a barrier is derived for each buffer by itself."""
    buffers = [s.buffer for s in walk(piece.body) if isinstance(s, Alloc) and s.buffer.scope is Scope.SHARED]
    buffers.sort(key=lambda b: not b.swizzled)
    offsets: dict[Buffer, int] = {}
    end = 0
    for buffer in buffers:
        offsets[buffer] = end
        unit = alignment_of(buffer)
        end += -(-element_count(buffer, kernel) * buffer.dtype.bytes // unit) * unit
    alignment = max(map(alignment_of, buffers), default=_ALIGNMENT)
    reduced = {s.buffer.dtype for s in walk(piece.body) if isinstance(s, Store) and groups.of(s) is not None}
    exchanged = sum(2 * piece.threads * max(dtype.bytes, 4) for dtype in reduced)
    if end + exchanged <= STATIC_BYTES:
        return SharedMemory(end, {}, 0, alignment)
    return SharedMemory(end, offsets, end, alignment)


def alignment_of(buffer: Buffer) -> int:
    """Bytes of which the address of a buffer in shared memory is a multiple; eight rows where it is swizzled."""
    return 8 * SWIZZLED_BYTES if buffer.swizzled else _ALIGNMENT


def element_count(buffer: Buffer, kernel: str) -> int:
    """The number of elements. Raises :class:`CompileError` when it is not constant."""
    sizes = [int(dim.value) if isinstance(dim, Const) else dim for dim in buffer.shape]
    known = [dim for dim in sizes if isinstance(dim, int)]
    if len(known) < len(sizes):
        raise CompileError(
            f"{buffer.scope.value} buffer {buffer.name!r} of kernel {kernel!r} must have a constant shape"
        )
    return math.prod(known)


def check_size(size: int, kernel: str, target: Target) -> None:
    """Raise :class:`CompileError` when a block may not have ``size`` bytes."""
    if size > target.shared_bytes:
        raise CompileError(
            f"kernel {kernel!r} needs {size} bytes of shared memory; a block may have {target.shared_bytes} on "
            f"{', '.join(target.features)}"
        )
