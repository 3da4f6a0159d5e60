"""Runs for known shapes, with as little between the call and the native code as Python allows."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polycomp.errors import ExecutionError
from polycomp.runtime.direct import ArgumentPlan, declined, direct_call
from polycomp.runtime.frame import INPUTS_AT, Frame, RunPlan
from polycomp.runtime.image import ModuleImage
from polycomp.runtime.library import Library, SharedPool
from polycomp.runtime.memory import alignment_for, empty_bytes

Array = np.ndarray[Any, Any]

_DIRECT_SCRATCH = 1 << 20
"""Bytes. A run with more takes so long that microseconds before it do not count."""

_addressof, _ndarray = ctypes.addressof, np.ndarray
_from_buffer: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer


class PreparedRun:
    """Call it with arrays of exactly the prepared shapes and the module's dtypes: new arrays come back.

    Nothing of that is checked. ``threads`` is how many it uses. May be called from several threads.
    """

    def __init__(
        self,
        name: str,
        plan: RunPlan,
        frames: list[Frame],
        new_frame: Callable[[], Frame],
        entry: Callable[..., int],
        threads: tuple[int, SharedPool, Library],
        item_bytes: Sequence[int],
        image: ModuleImage,
    ) -> None:
        """Use :meth:`Module.prepare` instead."""
        self._name = name
        self._plan = plan
        self._frames = frames
        self._new_frame = new_frame
        self._entry = entry
        self.threads, self._pools, self._library = threads
        self._item_bytes = tuple(item_bytes)
        self._image = image
        self._outputs = tuple((o.shape, o.dtype, o.nbytes, alignment_for(o.nbytes)) for o in plan.binding.outputs)

    def direct(self, arguments: Sequence[ArgumentPlan], as_tuple: bool) -> Callable[..., Any]:
        """See :func:`polycomp.runtime.direct.direct_call`. The function keeps scratch memory of its own."""
        plan = self._plan
        if plan.arena_bytes + plan.workspace_bytes > _DIRECT_SCRATCH:
            return declined
        frame = self._new_frame()
        frame.prepare(plan)
        cell = ctypes.addressof(self._pools.cell) if self.threads > 1 else 0
        return direct_call(self._library, frame, arguments, plan.binding.outputs, cell, as_tuple, self._image)

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """Raises :class:`ExecutionError` when an index lies outside of its tensor, or memory is short."""
        try:  # popping and appending are atomic: no other run uses this frame
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        if frame.plan is not self._plan:
            frame.prepare(self._plan)
        words = frame.words
        place = INPUTS_AT
        try:
            for array, item in zip(arrays, self._item_bytes, strict=True):
                try:  # fails for what is read-only, empty or not contiguous
                    address = _addressof(_from_buffer(array))
                    if address % item:
                        address = frame.input_address(place - INPUTS_AT, array)
                except (TypeError, ValueError, BufferError):
                    address = frame.input_address(place - INPUTS_AT, array)
                words[place] = address
                place += 1
            results = []
            for shape, dtype, size, alignment in self._outputs:
                memory = empty_bytes(size + alignment)
                start = _addressof(_from_buffer(memory))
                offset = -start % alignment
                words[place] = start + offset
                place += 1
                results.append(_ndarray(shape, dtype, memory, offset))
            # The pool must outlive the run, even when another thread makes a larger one.
            pool = self._pools.get(self.threads, self._library) if self.threads > 1 else None
            frame.begin(pool, 0)
            status = self._entry(*frame.arguments)
        finally:
            self._frames.append(frame)
        if status:
            raise ExecutionError(f"a run of {self._name!r} failed: an index lay outside of its tensor")
        return results
