"""What a run for known sizes does: where everything lies in a session's memory, and all launches with their arguments.

A session has one piece of memory for all that is its own, divided anew for each run's sizes:

    status words | outputs | inputs | arena | workspace

Status words and outputs come back to the host in one copy. Everything but the arena's inside begins at a multiple of
256 bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from polycomp.errors import ExecutionError
from polycomp.runtime import dims
from polycomp.runtime.binding import Binding, OutputPlan
from polycomp.runtime.cuda.images import Functions
from polycomp.runtime.cuda.plan import DevicePlan, DeviceStep, LaunchSpec, OperandSpec
from polycomp.runtime.dims import Dimension
from polycomp.runtime.manifest import Manifest

STATUS_BYTES = 24
"""Of a step: three words of 64 bits, which are 1, the index and the size once an index was outside."""

_ALIGNMENT = 256
_POINTER_ALIGNMENT = 16
"""Bytes. Kernels read and write vectors of so many."""

_MOST_BLOCKS = (1 << 31) - 1
_ADDRESSABLE = 1 << 47

Place = tuple[Literal["own", "weight"], int]
"""A byte offset, into the session's memory or into the weights."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """Of a kernel that ``Code.function`` has returned; ``grid`` is more than 0."""

    function: Any
    grid: int
    block: int
    shared_bytes: int


@dataclasses.dataclass(frozen=True)
class Call:
    """All launches of a step. They have the same arguments: ``pointers``, ``sizes``, workspace and status."""

    pointers: tuple[Place, ...]
    sizes: tuple[int, ...]
    status: int
    launches: tuple[Launch, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class RunLayout:
    """``given`` describes the inputs. ``outputs``, ``inputs``, ``workspace`` and each call's status are byte offsets
    into the ``total_bytes`` of the session's memory. Of its first bytes, ``status_bytes`` are status words that steps
    may write, all until ``output_end`` are copied to the host, and ``host_bytes`` have a counterpart there."""

    binding: Binding
    given: tuple[OutputPlan, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    workspace: int
    status_bytes: int
    output_end: int
    host_bytes: int
    total_bytes: int
    calls: tuple[Call, ...]

    def arguments(self, call: Call, memory: int, weights: int) -> tuple[int, ...]:
        """Those of a call, for a session's memory and weights at these addresses."""
        base = {"own": memory, "weight": weights}
        pointers = (base[where] + offset for where, offset in call.pointers)
        return (*pointers, *call.sizes, memory + self.workspace, memory + call.status)


def checking_steps(manifest: Manifest) -> tuple[int, ...]:
    """The numbers of the steps that can find an index outside of its tensor. Their status words are in this order."""
    return tuple(i for i, step in enumerate(manifest.steps) if step.chosen_from)


def lay_out(
    manifest: Manifest, plan: DevicePlan, functions: Functions, binding: Binding, given: tuple[OutputPlan, ...]
) -> RunLayout:
    """Evaluate all sizes. ``given`` describes the inputs.

    Raises :class:`ExecutionError` when so much memory or so many blocks are impossible.
    """
    values = {s.name: size for s, size in zip(manifest.symbols, binding.sizes, strict=True)}
    places = {step: STATUS_BYTES * place for place, step in enumerate(checking_steps(manifest))}
    status_bytes = STATUS_BYTES * len(places)
    room = _Room()
    room.take(status_bytes + STATUS_BYTES)  # the last ones are given to steps that never write them
    outputs = tuple(room.take(o.nbytes) for o in binding.outputs)
    output_end = room.end
    inputs = tuple(room.take(g.nbytes) for g in given)
    host_bytes = room.end
    arena = room.take(_size(manifest.arena_bytes, values))
    workspace = room.take(max((_size(s.workspace_bytes, values) for s in plan.steps), default=0))
    if room.end > _ADDRESSABLE:
        raise ExecutionError(f"a run of {manifest.name!r} with these sizes would need {room.end} bytes of memory")
    maker = _CallMaker(functions, values, outputs, inputs, arena)
    calls = tuple(maker.call(step, places.get(i, status_bytes)) for i, step in enumerate(plan.steps))
    return RunLayout(binding, given, outputs, inputs, workspace, status_bytes, output_end, host_bytes, room.end, calls)


def _size(dim: Dimension, values: Mapping[str, int]) -> int:
    return max(0, dims.evaluate(dim, values))


class _Room:
    """Places one after the other."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, size: int) -> int:
        start = -(-self.end // _ALIGNMENT) * _ALIGNMENT
        self.end = start + size
        return start


@dataclasses.dataclass(frozen=True)
class _CallMaker:
    """``values`` are those of the symbols; ``outputs``, ``inputs`` and ``arena`` as in :class:`RunLayout`."""

    functions: Functions
    values: Mapping[str, int]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    arena: int

    def call(self, step: DeviceStep, status: int) -> Call:
        pointers = tuple(self._pointer(step, operand) for operand in step.operands)
        sizes = tuple(dims.evaluate(size, self.values) for size in step.sizes)
        launches = (self._launch(step, launch) for launch in step.launches)
        return Call(pointers, sizes, status, tuple(launch for launch in launches if launch.grid > 0))

    def _pointer(self, step: DeviceStep, operand: OperandSpec) -> Place:
        offset = dims.evaluate(operand.offset, self.values)
        if offset % _POINTER_ALIGNMENT:
            raise ExecutionError(
                f"the kernel {step.symbol!r} cannot use what begins {offset} bytes into the {operand.storage}: on a "
                f"GPU that is a multiple of {_POINTER_ALIGNMENT}; compile the model again"
            )
        match operand.storage:
            case "weight":
                return "weight", offset
            case "arena":
                return "own", self.arena + offset
            case "input":
                return "own", self.inputs[operand.position] + offset
        return "own", self.outputs[operand.position] + offset

    def _launch(self, step: DeviceStep, launch: LaunchSpec) -> Launch:
        grid = dims.evaluate(launch.grid, self.values)
        if grid > _MOST_BLOCKS:
            raise ExecutionError(
                f"the kernel {launch.function!r} would need {grid} blocks of threads, more than the {_MOST_BLOCKS} "
                f"that a GPU takes; run the module on smaller inputs"
            )
        return Launch(self.functions[step.symbol, launch.function], grid, launch.block, launch.shared_bytes)
