"""The memory of one run of a module: what the native entry function is given."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import numpy as np

from polycomp.runtime.binding import Binding, OutputPlan
from polycomp.runtime.library import ThreadPool
from polycomp.runtime.memory import Bytes, address_of, alignment_for, allocate, empty_bytes

# Words of a frame: a pool handle {core, threads}, the context {pool, status, timings}, then the addresses of inputs
# and outputs, then the values of the sizes.
_CORE, _THREADS, _POOL, _STATUS, _TIMINGS, INPUTS_AT = range(6)
_WORD = 8


@dataclasses.dataclass(frozen=True, eq=False)
class RunPlan:
    """A binding, and the bytes of scratch memory that it needs."""

    binding: Binding
    arena_bytes: int
    workspace_bytes: int


class Frame:
    """Scratch memory and argument block of one run at a time; reused by later runs.

    ``arguments`` are those of ``polycomp_run``; ``words`` from ``INPUTS_AT`` on are the addresses of inputs, then of
    outputs.
    """

    def __init__(self, n_arrays: int, n_sizes: int, threads: int, weights: int) -> None:
        self.words = (ctypes.c_int64 * (INPUTS_AT + n_arrays + n_sizes))()
        base = ctypes.addressof(self.words)
        self._sizes_at = INPUTS_AT + n_arrays
        self.threads = threads
        self.words[_THREADS] = threads
        self.words[_POOL] = base if threads > 1 else 0
        self._arena, self._workspace = allocate(0), allocate(0)
        self.plan: RunPlan | None = None
        self._staging: dict[int, tuple[np.ndarray[Any, Any], int]] = {}
        self.arguments = (
            ctypes.c_void_p(base + _WORD * INPUTS_AT),
            ctypes.c_void_p(base + _WORD * self._sizes_at),
            ctypes.c_void_p(address_of(self._arena)),
            ctypes.c_void_p(address_of(self._workspace)),
            ctypes.c_void_p(weights),
            ctypes.c_void_p(base + _WORD * _POOL),
        )

    def prepare(self, plan: RunPlan) -> None:
        """Make the scratch memory large enough, and pass the sizes."""
        if self._arena.nbytes < plan.arena_bytes:
            self._arena = self._replace(2, plan.arena_bytes)
        if self._workspace.nbytes < plan.workspace_bytes:
            self._workspace = self._replace(3, plan.workspace_bytes)
        for i, size in enumerate(plan.binding.sizes, self._sizes_at):
            self.words[i] = size
        self.plan = plan

    @property
    def addresses(self) -> tuple[int, ...]:
        """The arguments of ``polycomp_run`` as numbers."""
        return tuple(argument.value or 0 for argument in self.arguments)

    def _replace(self, argument: int, size: int) -> Bytes:
        memory = allocate(size)
        self.arguments[argument].value = address_of(memory)
        return memory

    def set_input(self, position: int, array: np.ndarray[Any, Any]) -> None:
        """Pass an array of the right dtype; it is copied when it is not contiguous or not aligned to its elements."""
        self.words[INPUTS_AT + position] = self.input_address(position, array)

    def input_address(self, position: int, array: np.ndarray[Any, Any]) -> int:
        """Where the array's elements, or a copy of them that the code can read, are."""
        flags = array.flags
        return address_of(array) if flags.c_contiguous and flags.aligned else self._stage(position, array)

    def _stage(self, position: int, array: np.ndarray[Any, Any]) -> int:
        copy, address = self._staging.get(position) or (None, 0)
        if copy is None or copy.shape != array.shape:
            copy, address = self._staging[position] = aligned_empty(array.shape, array.dtype, array.nbytes)
        np.copyto(copy, array)
        return address

    def new_output(self, position: int, plan: OutputPlan) -> np.ndarray[Any, Any]:
        """A new array for the output; ``position`` counts on from the inputs."""
        array, address = aligned_empty(plan.shape, plan.dtype, plan.nbytes)
        self.words[INPUTS_AT + position] = address
        return array

    def begin(self, pool: ThreadPool | None, timings: int) -> None:
        """Reset the status. ``pool`` must outlive the run and have enough threads (None when one thread is enough);
        ``timings`` is the address of the array for the steps' times, or 0."""
        if pool is not None:
            self.words[_CORE] = pool.address
        self.words[_STATUS] = 0
        self.words[_TIMINGS] = timings


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> tuple[np.ndarray[Any, Any], int]:
    """A new uninitialised row-major array whose first element is 64-byte aligned or better, and its address."""
    alignment = alignment_for(nbytes)
    memory = empty_bytes(nbytes + alignment)
    start = address_of(memory)
    offset = -start % alignment
    return np.ndarray(shape, dtype, memory, offset), start + offset
