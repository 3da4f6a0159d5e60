"""The plan of a module for GPUs: which kernels run on which memory, and where their code is. Part of the manifest."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from polycomp.errors import ModuleFileError
from polycomp.runtime import dims
from polycomp.runtime.dims import Dimension

if TYPE_CHECKING:
    from polycomp.runtime.manifest import Manifest

PTX = "ptx"
"""In the place of an architecture: code that the driver compiles for the GPU it finds."""

MOST_THREADS = 1024
"""Of a block, on every GPU."""

STORAGES = ("input", "output", "weight", "arena")

_ARCHITECTURE = re.compile(r"sm_\d{2,3}[af]?")


@dataclasses.dataclass(frozen=True)
class CodeSpec:
    """Code of the kernel ``symbol`` for ``arch`` (``"sm_80"``, ``"sm_90a"``, or ``"ptx"``): ``bytes`` bytes at the byte
    ``offset`` of the module's object part."""

    symbol: str
    arch: str
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class OperandSpec:
    """A pointer that a kernel is given: to the byte ``offset`` of an input or output (number ``position``), of the
    weights, or of the arena."""

    storage: str
    position: int
    offset: Dimension


@dataclasses.dataclass(frozen=True)
class LaunchSpec:
    """A ``__global__`` function, run in ``grid`` blocks of ``block`` threads with ``shared_bytes`` of dynamic shared
    memory; not at all where ``grid`` is 0."""

    function: str
    grid: Dimension
    block: int
    shared_bytes: int


@dataclasses.dataclass(frozen=True)
class DeviceStep:
    """One kernel call: its operands (inputs, then outputs), the values of its size parameters, the bytes of scratch
    memory that it needs, and its launches in order; ``special`` are those of code for one architecture, by which they
    are given."""

    symbol: str
    operands: tuple[OperandSpec, ...]
    sizes: tuple[Dimension, ...]
    workspace_bytes: Dimension
    launches: tuple[LaunchSpec, ...]
    special: Mapping[str, tuple[LaunchSpec, ...]] = dataclasses.field(default_factory=dict)

    def on(self, arch: str) -> tuple[LaunchSpec, ...]:
        """The launches where code for ``arch`` is executed."""
        return self.special.get(arch, self.launches)


@dataclasses.dataclass(frozen=True)
class DevicePlan:
    """``steps`` are those of the manifest, in order; ``code`` has at least one entry for each of their symbols."""

    code: tuple[CodeSpec, ...]
    steps: tuple[DeviceStep, ...]

    @property
    def architectures(self) -> tuple[str, ...]:
        """Those that there is code for, each once."""
        return tuple(dict.fromkeys(c.arch for c in self.code))


def parse_plan(raw: Mapping[str, Any], symbols: frozenset[str]) -> DevicePlan:
    """Read back what :func:`dataclasses.asdict` makes of a plan. ``symbols`` are those that sizes may name.

    Raises KeyError, TypeError, ValueError or AttributeError when it is not well formed, as all parts of the manifest.
    """
    return DevicePlan(tuple(map(_code, raw["code"])), tuple(_step(s, symbols) for s in raw["steps"]))


def _code(raw: Mapping[str, Any]) -> CodeSpec:
    return CodeSpec(str(raw["symbol"]), str(raw["arch"]), _count(raw["offset"]), _count(raw["bytes"]))


def _step(raw: Mapping[str, Any], symbols: frozenset[str]) -> DeviceStep:
    return DeviceStep(
        symbol=str(raw["symbol"]),
        operands=tuple(_operand(o, symbols) for o in raw["operands"]),
        sizes=tuple(dims.check(s, symbols) for s in raw["sizes"]),
        workspace_bytes=dims.check(raw["workspace_bytes"], symbols),
        launches=tuple(_launch(one, symbols) for one in raw["launches"]),
        special={
            str(arch): tuple(_launch(one, symbols) for one in launches) for arch, launches in raw["special"].items()
        },
    )


def _operand(raw: Mapping[str, Any], symbols: frozenset[str]) -> OperandSpec:
    return OperandSpec(str(raw["storage"]), _count(raw["position"]), dims.check(raw["offset"], symbols))


def _launch(raw: Mapping[str, Any], symbols: frozenset[str]) -> LaunchSpec:
    grid = dims.check(raw["grid"], symbols)
    return LaunchSpec(str(raw["function"]), grid, _count(raw["block"]), _count(raw["shared_bytes"]))


def _count(raw: Any) -> int:
    if type(raw) is not int or raw < 0:
        raise ValueError(f"{raw!r} is not a number of things")
    return raw


def check_plan(manifest: Manifest, object_bytes: int, label: str) -> DevicePlan:
    """The plan of a module whose object part has so many bytes.

    Raises :class:`ModuleFileError`, naming the module by ``label``, when the plan does not fit the rest of it.
    """
    if manifest.device is None:
        raise ModuleFileError(f"{label} has a malformed manifest: it is for GPUs, but has no plan for one")
    problem = next(_problems(manifest.device, manifest, object_bytes), None)
    if problem is not None:
        raise ModuleFileError(f"{label} has a malformed manifest: {problem}")
    return manifest.device


def _problems(plan: DevicePlan, manifest: Manifest, object_bytes: int) -> Iterator[str]:
    listed, planned = [s.symbol for s in manifest.steps], [s.symbol for s in plan.steps]
    if listed != planned:
        yield f"its {len(listed)} steps are not the {len(planned)} that are planned for a GPU"
    for code in plan.code:
        if code.arch != PTX and not _ARCHITECTURE.fullmatch(code.arch):
            yield f"{code.arch!r} is no GPU architecture"
        if code.offset + code.bytes > object_bytes:
            yield f"the code of {code.symbol!r} ends at {code.offset + code.bytes} of {object_bytes} bytes"
    missing = sorted({s.symbol for s in plan.steps if s.launches} - {c.symbol for c in plan.code})
    if missing:
        yield f"there is no code of {missing[0]!r}"
    for step in plan.steps:
        yield from _step_problems(step, manifest)


def _step_problems(step: DeviceStep, manifest: Manifest) -> Iterator[str]:
    counts = {"input": len(manifest.inputs), "output": len(manifest.outputs)}
    for operand in step.operands:
        if operand.storage not in STORAGES:
            yield f"an operand of {step.symbol!r} is in {operand.storage!r}, not in one of {', '.join(STORAGES)}"
        elif operand.position >= counts.get(operand.storage, 1):
            yield f"an operand of {step.symbol!r} is {operand.storage} {operand.position}, which there is not"
    for launch in (launch for launches in (step.launches, *step.special.values()) for launch in launches):
        if not 1 <= launch.block <= MOST_THREADS:
            yield f"{launch.function!r} has blocks of {launch.block} threads, not of 1 to {MOST_THREADS}"
