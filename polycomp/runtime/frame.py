"""The memory of one run of a module: what the native entry function is given."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polycomp.runtime.binding import Binding, OutputPlan
from polycomp.runtime.library import ThreadPool
from polycomp.runtime.memory import Bytes, address_of, allocate, empty_bytes

# Words of a frame: a pool handle {core, threads}, the context {pool, status, timings, step, index, size}, then the
# addresses of inputs and outputs, then the values of the sizes.
_CORE, _THREADS, _POOL, _STATUS, _TIMINGS, _STEP, _INDEX, _SIZE, _INPUTS_AT = range(9)
_WORD = 8

_addressof = ctypes.addressof
_from_buffer: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class RunPlan:
    """A binding, and the bytes of scratch memory that it needs."""

    binding: Binding
    arena_bytes: int
    workspace_bytes: int


class Frame:
    """Scratch memory and argument block of one run at a time; reused by later runs.

    ``arguments`` are those of ``polycomp_run``. ``item_bytes`` are the sizes of an element of each input.
    """

    def __init__(self, item_bytes: tuple[int, ...], n_outputs: int, n_sizes: int, threads: int, weights: int) -> None:
        self._item_bytes = item_bytes
        self._outputs_at = _INPUTS_AT + len(item_bytes)
        self._sizes_at = self._outputs_at + n_outputs
        self.words = (ctypes.c_int64 * (self._sizes_at + n_sizes))()
        base = ctypes.addressof(self.words)
        self.threads = threads
        self.words[_THREADS] = threads
        self.words[_POOL] = base if threads > 1 else 0
        self._arena, self._workspace = allocate(0), allocate(0)
        self.plan: RunPlan | None = None
        self._staging: dict[int, tuple[Array, int]] = {}
        self.arguments = (
            ctypes.c_void_p(base + _WORD * _INPUTS_AT),
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

    def pass_inputs(self, arrays: Sequence[Array]) -> None:
        """Pass arrays of the right dtypes; one that is not contiguous or not aligned to its elements is copied."""
        for place, (array, item) in enumerate(zip(arrays, self._item_bytes, strict=True), _INPUTS_AT):
            try:  # the quickest way to an address, which fails for what is read-only, empty or not contiguous
                address = _addressof(_from_buffer(array))
            except (TypeError, ValueError, BufferError):
                address = self._address(place, array)
            self.words[place] = address if address % item == 0 else self._stage(place, array)

    def _address(self, place: int, array: Array) -> int:
        """Where the array's elements, or a copy of them in one piece, are."""
        return address_of(array) if array.flags.c_contiguous else self._stage(place, array)

    def _stage(self, place: int, array: Array) -> int:
        copy, address = self._staging.get(place) or (None, 0)
        if copy is None or copy.shape != array.shape:
            plan = OutputPlan(array.shape, array.dtype, array.nbytes)
            copy, address = self._staging[place] = _aligned_empty(plan)
        np.copyto(copy, array)
        return address

    def new_outputs(self, plans: Sequence[OutputPlan]) -> list[Array]:
        """New arrays, which the run writes."""
        results = []
        for place, plan in enumerate(plans, self._outputs_at):
            array, self.words[place] = _aligned_empty(plan)
            results.append(array)
        return results

    def begin(self, pool: ThreadPool | None, timings: int) -> None:
        """Reset the status. ``pool`` must outlive the run and have enough threads (None when one thread is enough);
        ``timings`` is the address of the array for the steps' times, or 0."""
        if pool is not None:
            self.words[_CORE] = pool.address
        self.words[_STATUS] = 0
        self.words[_TIMINGS] = timings

    def wrong_index(self) -> WrongIndex:
        """Of a run that has failed."""
        return WrongIndex(self.words[_STATUS] - 1, self.words[_INDEX], self.words[_SIZE])


@dataclasses.dataclass(frozen=True)
class WrongIndex:
    """What a run failed of: in the step of that number, ``index`` was outside of a dimension of ``size``."""

    step: int
    index: int
    size: int


class Frames:
    """The frames of a module's runs on ``threads`` threads. ``make`` makes a new one."""

    def __init__(self, make: Callable[[], Frame], threads: int) -> None:
        self.make = make
        self.threads = threads
        self._free: list[Frame] = []

    def take(self, plan: RunPlan) -> Frame:
        """A frame, prepared, that no other run uses; popping and appending are atomic."""
        try:
            frame = self._free.pop()
        except IndexError:
            frame = self.make()
        if frame.plan is not plan:
            frame.prepare(plan)
        return frame

    def put_back(self, frame: Frame) -> None:
        """Let a later run have the frame."""
        self._free.append(frame)


def _aligned_empty(plan: OutputPlan) -> tuple[Array, int]:
    """A new uninitialised row-major array, aligned, and the address of its first element."""
    alignment = plan.alignment
    memory = empty_bytes(plan.nbytes + alignment)
    start = _addressof(_from_buffer(memory))
    offset = -start % alignment
    return np.ndarray(plan.shape, plan.dtype, memory, offset), start + offset
