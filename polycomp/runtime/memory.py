"""Aligned memory for arenas, weights and arrays."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

from polycomp.errors import OutOfMemoryError
from polycomp.target import ALIGNMENT, PAGE_BYTES

_HUGE_PAGE = 2 << 20
_LARGE = 1 << 16

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def address_of(array: np.ndarray[Any, Any]) -> int:
    """Address of the first element."""
    return int(array.__array_interface__["data"][0])


def allocate(size: int) -> Bytes:
    """``size`` bytes of private memory, 64-byte aligned; in huge pages, where the system has them, when it is large.

    Raises :class:`OutOfMemoryError` when there is not so much.
    """
    if size < 2 * _HUGE_PAGE:
        return _aligned(empty_bytes(size + ALIGNMENT), size, ALIGNMENT)
    try:  # Private: an arena in shared memory would be common to both sides of a fork.
        pages = mmap.mmap(-1, size + _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as e:
        raise _too_little(size) from e
    with contextlib.suppress(OSError):  # a kernel without huge pages: ordinary ones do
        pages.madvise(mmap.MADV_HUGEPAGE)
    return _aligned(np.frombuffer(pages, np.uint8), size, _HUGE_PAGE)


def alignment_for(size: int) -> int:
    """The alignment of an output of ``size`` bytes.

    Large ones begin a page. The system's own large arrays begin just behind the start of one: an output a little
    further into its page than the inputs are in theirs would make each load wait for the store before it, which has
    the same address within a page (4-KByte aliasing in Intel's optimisation manual).
    """
    return PAGE_BYTES if size >= _LARGE else ALIGNMENT


def empty_bytes(size: int) -> Bytes:
    """An uninitialised numpy array. Raises :class:`OutOfMemoryError` when there is not enough memory."""
    try:
        return np.empty(size, np.uint8)
    except MemoryError as e:
        raise _too_little(size) from e


def _too_little(size: int) -> OutOfMemoryError:
    return OutOfMemoryError(f"there is not enough memory for {size} bytes; run the module on smaller inputs")


def _aligned(memory: Bytes, size: int, alignment: int) -> Bytes:
    start = -address_of(memory) % alignment
    return memory[start : start + size]


def aligned_copy(data: Any) -> Bytes:
    """A private aligned copy of a buffer's bytes."""
    source = np.frombuffer(data, np.uint8)
    copy = allocate(source.nbytes)
    copy[:] = source
    return copy
