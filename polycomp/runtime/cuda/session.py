"""Running a module's steps on a GPU: one session is one queue of work with memory of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from polycomp.errors import ExecutionError, OutOfMemoryError
from polycomp.runtime.binding import Array, OutputPlan
from polycomp.runtime.cuda.arrays import DeviceArray, Input, read_array
from polycomp.runtime.cuda.device import Buffer, Device, Graph, Stream
from polycomp.runtime.cuda.images import Functions
from polycomp.runtime.cuda.layout import STATUS_BYTES, Call, RunLayout, checking_steps
from polycomp.runtime.cuda.plan import DevicePlan
from polycomp.runtime.frame import WrongIndex
from polycomp.runtime.manifest import Manifest
from polycomp.runtime.memory import Bytes
from polycomp.runtime.prepared import failure_text

Enqueued = TypeVar("Enqueued")

_KEPT_RUNS = 64
"""Graphs. Each takes some memory of the driver's."""

_HELD_STEPS = 64
"""Steps whose work is held back together. A driver's queue has room for about a thousand pieces of work; who waits for
room in one that is held back waits for long."""


@dataclasses.dataclass(frozen=True, eq=False)
class Resident:
    """What lies on a GPU for all runs of a module. ``weights`` is None where it has none."""

    manifest: Manifest
    plan: DevicePlan
    device: Device
    functions: Functions
    weights: Buffer | None


@dataclasses.dataclass(frozen=True)
class _Step:
    """The launches of a step, and what they are given."""

    call: Call
    arguments: tuple[int, ...]


class _Staged(NamedTuple):
    """The counterpart of an input or output on the host, as what it is and as bytes."""

    array: Array
    content: Bytes


def _staged(host: Bytes, offset: int, plan: OutputPlan) -> _Staged:
    content = host[offset : offset + plan.nbytes]
    return _Staged(content.view(plan.dtype).reshape(plan.shape), content)


class _Run:
    """The work of a layout in a session's memory: enqueued launch by launch the first time, and as one graph from then
    on. What the graph reads and writes is the session's own, so it stays valid whatever arrays a caller brings."""

    def __init__(self, layout: RunLayout, steps: Sequence[_Step], stream: Stream, memory: int, host: Bytes) -> None:
        """``memory`` is the address of the session's, and ``host`` its counterpart."""
        self.layout = layout
        self.steps = steps
        self.inputs = [_staged(host, at, plan) for at, plan in zip(layout.inputs, layout.given, strict=True)]
        self.outputs = [
            _staged(host, at, plan) for at, plan in zip(layout.outputs, layout.binding.outputs, strict=True)
        ]
        self._stream = stream
        self._memory = memory
        self._graph: Graph | None = None
        self._is_known = False

    def enqueue(self) -> None:
        # A size that comes once is not worth a graph; and only here an error is told of the kernel that has it.
        if not self._is_known:
            self.enqueue_plainly()
            self._is_known = True
            return
        if self._graph is None:
            self._graph = self._stream.capture(self.enqueue_plainly)
        self._graph.launch()

    def enqueue_plainly(self) -> None:
        self.clear_status()
        for step in self.steps:
            self.enqueue_step(step)

    def clear_status(self) -> None:
        if self.layout.status_bytes:
            self._stream.clear(self._memory, self.layout.status_bytes)

    def enqueue_step(self, step: _Step) -> None:
        for one in step.call.launches:
            self._stream.launch(one.function, one.grid, one.block, one.shared_bytes, step.arguments)


class Session:
    """One run at a time; from several threads, one after the other. Sessions of a module share its weights and code;
    each has its own arena, queue of work and graphs, so that their runs may overlap.

    Inputs and outputs are copied between the caller's arrays and the session's memory. That costs what moving their
    bytes costs, once, and lets one graph per combination of sizes serve all calls, where pointers baked into it would
    have to be the same again, and would dangle when a caller frees an array.
    """

    def __init__(self, resident: Resident) -> None:
        """Use :meth:`CudaModule.session` instead. Called within ``device.active()``."""
        self._resident = resident
        self._device = resident.device
        self._stream = resident.device.new_stream()
        self._lock = threading.Lock()
        self._memory: Buffer | None = None
        self._memory_bytes = 0
        self._host: Bytes = np.empty(0, np.uint8)
        self._runs: dict[RunLayout, _Run] = {}
        self._checking = checking_steps(resident.manifest)

    def run(self, layout: RunLayout, inputs: Sequence[Input]) -> list[Any]:
        """The outputs, for inputs of just the shapes of the layout: numpy arrays, or arrays on the GPU when any input
        is one.

        Raises :class:`ExecutionError` when an index lies outside of its tensor or the GPU fails, and
        :class:`OutOfMemoryError`.
        """
        return self._perform(layout, inputs, _Run.enqueue)[0]

    def run_profiled(self, layout: RunLayout, inputs: Sequence[Input]) -> tuple[list[Any], list[int]]:
        """Like :meth:`run`, launch by launch, and the nanoseconds that the GPU worked on each step."""
        outputs, intervals = self._perform(layout, inputs, self._enqueue_timed)
        with self._device.active():
            return outputs, list(itertools.starmap(self._device.nanoseconds, intervals))

    def _perform(
        self, layout: RunLayout, inputs: Sequence[Input], enqueue: Callable[[_Run], Enqueued]
    ) -> tuple[list[Any], Enqueued]:
        with self._lock, self._device.active():
            run = self._ready(layout)
            try:
                if any(isinstance(array, DeviceArray) for array in inputs):
                    return self._on_device(run, inputs, enqueue)
                self._pass(run, inputs)
                enqueued = enqueue(run)
                return self._fetch(run), enqueued
            except BaseException:
                # Nothing of it may go on: the next run uses the same memory.
                with contextlib.suppress(Exception):
                    self._stream.synchronize()
                raise

    def _on_device(
        self, run: _Run, inputs: Sequence[Input], enqueue: Callable[[_Run], Enqueued]
    ) -> tuple[list[Any], Enqueued]:
        outputs = [self._device.new_array(o.shape, o.dtype) for o in run.layout.binding.outputs]
        self._wait_for_callers(inputs)
        self._pass(run, inputs)
        enqueued = enqueue(run)
        self._give(run.layout, outputs)
        return outputs, enqueued

    def _enqueue_timed(self, run: _Run) -> list[tuple[Any, Any]]:
        """The events before and after each step."""
        run.clear_status()
        intervals: list[tuple[Any, Any]] = []
        for first in range(0, len(run.steps), _HELD_STEPS):
            release = self._stream.hold()  # else the GPU would wait for launches, and that be counted
            try:
                events = [self._stream.record()]
                for step in run.steps[first : first + _HELD_STEPS]:
                    run.enqueue_step(step)
                    events.append(self._stream.record())
            finally:
                release()
            intervals += itertools.pairwise(events)
        return intervals

    # Memory

    def _ready(self, layout: RunLayout) -> _Run:
        if layout.total_bytes > self._memory_bytes or self._memory is None:
            self._grow(layout)
        if self._host.nbytes < layout.host_bytes:
            self._runs.clear()
            self._host = self._device.host_memory(max(layout.host_bytes, _roomy(self._host.nbytes)))
        run = self._runs.get(layout)
        if run is None:
            if len(self._runs) >= _KEPT_RUNS:
                self._runs.clear()
            run = self._runs[layout] = self._new_run(layout)
        return run

    def _grow(self, layout: RunLayout) -> None:
        """Replace the memory by more, which leaves no run valid."""
        self._runs.clear()
        needed, roomy = layout.total_bytes, _roomy(self._memory_bytes)
        self._memory, self._memory_bytes = None, 0  # freed before there is other memory
        if needed < roomy:
            with contextlib.suppress(OutOfMemoryError):
                self._memory, self._memory_bytes = self._device.allocate(roomy), roomy
                return
        try:
            self._memory, self._memory_bytes = self._device.allocate(needed), needed
        except OutOfMemoryError as error:
            what = f"a run of {self._resident.manifest.name!r} with these sizes needs"
            told = shortage(self._device, what, needed, "run the module on smaller inputs")
            raise OutOfMemoryError(told) from error

    def _new_run(self, layout: RunLayout) -> _Run:
        weights = self._resident.weights
        base = weights.address if weights is not None else 0
        steps = tuple(_Step(call, layout.arguments(call, self._address, base)) for call in layout.calls)
        return _Run(layout, steps, self._stream, self._address, self._host)

    @property
    def _address(self) -> int:
        assert self._memory is not None
        return self._memory.address

    # Inputs and outputs

    def _wait_for_callers(self, inputs: Sequence[Input]) -> None:
        """Let the run begin after the work that makes the inputs, and after what still goes on in memory that has just
        become the outputs': both are on the caller's current stream or on one that an input names."""
        self._stream.wait_for(None)
        for stream in {a.stream for a in inputs if isinstance(a, DeviceArray) and a.stream is not None}:
            self._stream.wait_for(stream)

    def _pass(self, run: _Run, inputs: Sequence[Input]) -> None:
        """Enqueue the copies of the inputs."""
        for array, offset, staged in zip(inputs, run.layout.inputs, run.inputs, strict=True):
            if not array.nbytes:
                continue
            if isinstance(array, DeviceArray):
                self._stream.copy(self._address + offset, array.address, array.nbytes)
            else:
                np.copyto(staged.array, array)
                self._stream.upload(self._address + offset, staged.content)

    def _give(self, layout: RunLayout, outputs: Sequence[Any]) -> None:
        """Copy the outputs to arrays on the GPU, and wait for them: the caller may use them on any stream."""
        for offset, array in zip(layout.outputs, outputs, strict=True):
            target = read_array(self._device, array)
            if target.nbytes:
                self._stream.copy(target.address, self._address + offset, target.nbytes)
        if layout.status_bytes:
            self._stream.download(self._host[: layout.status_bytes], self._address)
        self._finish(layout)

    def _fetch(self, run: _Run) -> list[Array]:
        """The outputs as numpy arrays."""
        self._stream.download(self._host[: run.layout.output_end], self._address)
        self._finish(run.layout)
        return [staged.array.copy() for staged in run.outputs]

    def _finish(self, layout: RunLayout) -> None:
        self._stream.synchronize()
        words = self._host[: layout.status_bytes].view(np.int64).reshape(-1, STATUS_BYTES // 8)
        for step, (failed, index, size) in zip(self._checking, words.tolist(), strict=True):
            if failed:
                raise ExecutionError(failure_text(self._resident.manifest, WrongIndex(step, index, size)))


def _roomy(size: int) -> int:
    """What memory grows to at least: sizes that increase from run to run would else replace it, and the graphs, in
    each of them."""
    return size + size // 4


def shortage(device: Device, what: str, size: int, remedy: str) -> str:
    """What is said where ``what``, such as "a run needs", is ``size`` bytes of a GPU that has not so many."""
    memory = device.memory()
    return (
        f"{what} {size} bytes on the GPU {device.name!r}, which has {memory.free} of {memory.total} bytes free; "
        f"{remedy}"
    )
