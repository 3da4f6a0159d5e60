"""Memory between memory that may not be touched."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_GUARD = 1 << 20
"""Bytes before and after, of the system's pages."""

UNWRITTEN = 0xFF
"""Every byte of memory that nobody has written: a NaN, or -1."""


class GuardedMemory:
    """``size`` bytes that begin at a multiple of ``alignment`` and end less than ``alignment`` bytes before memory that
    may not be touched; before the page in which they begin it is so too."""

    def __init__(self, size: int, alignment: int = 16) -> None:
        inner = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pages = mmap.mmap(-1, inner + 2 * _GUARD, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._pages, np.uint8)
        for guard in (0, _GUARD + inner):
            _protect(whole.ctypes.data + guard, _GUARD)
        first = _GUARD + (inner - size) // alignment * alignment
        self.bytes: Bytes = whole[first : first + size]
        self.bytes[:] = UNWRITTEN
        self.address: int = whole.ctypes.data + first

    @property
    def size(self) -> int:
        return self.bytes.nbytes


def guarded_copy(array: np.ndarray[Any, Any]) -> GuardedMemory:
    """The bytes of a row-major array."""
    memory = GuardedMemory(array.nbytes)
    memory.bytes[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory


def _protect(address: int, size: int) -> None:
    status = ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), 0)
    assert status == 0, "mprotect failed"
