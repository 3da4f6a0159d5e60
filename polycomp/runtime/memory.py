"""Aligned memory for arenas, weights and arrays."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

ALIGNMENT = 64
_HUGE_PAGE = 2 << 20

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def address_of(array: np.ndarray[Any, Any]) -> int:
    """Address of the first element."""
    return int(array.__array_interface__["data"][0])


def allocate(size: int) -> Bytes:
    """``size`` bytes of private memory, 64-byte aligned; in huge pages, where the system has them, when it is large."""
    if size < 2 * _HUGE_PAGE:
        return _aligned(np.empty(size + ALIGNMENT, np.uint8), size, ALIGNMENT)
    # Private: an arena in shared memory would be common to both sides of a fork.
    pages = mmap.mmap(-1, size + _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages: ordinary ones do
        pages.madvise(mmap.MADV_HUGEPAGE)
    return _aligned(np.frombuffer(pages, np.uint8), size, _HUGE_PAGE)


def _aligned(memory: Bytes, size: int, alignment: int) -> Bytes:
    start = -address_of(memory) % alignment
    return memory[start : start + size]


def aligned_copy(data: Any) -> Bytes:
    """A private aligned copy of a buffer's bytes."""
    source = np.frombuffer(data, np.uint8)
    copy = allocate(source.nbytes)
    copy[:] = source
    return copy
