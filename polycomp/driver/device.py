"""Kernels for a GPU: their code, and the module that is made of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.codegen.cuda.emit import EmittedCuda, Launch, emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import DeviceCode, Resources, compile_source, ptx_arch
from polycomp.driver.manifest import ModuleInfo, dimension, make_manifest
from polycomp.driver.work import known
from polycomp.expr import Expr, Interval, Var, maximum, substitute, wrap
from polycomp.loops import LoopNest
from polycomp.loops.program import Operand, Program, Step, Workspace
from polycomp.runtime.cuda.plan import PTX, CodeSpec, DevicePlan, DeviceStep, LaunchSpec, OperandSpec
from polycomp.runtime.image import ModuleParts
from polycomp.target import Target
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class DeviceKernel:
    """A kernel's ``launches`` in order, whose functions are in ``code``, and the CUDA C that it was compiled from.
    Grids are over the kernel's own ``sizes``. ``special`` is what is executed instead on some architectures."""

    source: str
    launches: tuple[Launch, ...]
    code: DeviceCode
    workspace: Workspace
    sizes: tuple[Var, ...]
    special: Mapping[str, DeviceKernel] = dataclasses.field(default_factory=dict)

    @property
    def most_workspace(self) -> Workspace:
        """What suffices on every architecture."""
        most: Dim = self.workspace.shared
        for made in self.special.values():
            most = known(maximum(most, made.workspace.shared))
        return Workspace(most)

    @property
    def by_architecture(self) -> Mapping[str, DeviceKernel]:
        """What is executed on each architecture that there is machine code for."""
        return {arch: kernel for kernel in (self, *self.special.values()) for arch in kernel.code.cubins}


def compile_device_kernel(
    nest: LoopNest,
    target: Target,
    ranges: Mapping[Var, Interval],
    nest_for: Callable[[Target], LoopNest] | None = None,
) -> DeviceKernel:
    """Compile a nest for all architectures of ``target``.

    ``nest_for`` makes the same kernel's nest for an architecture with products of its own, where it has any. Raises
    :class:`CompileError` for what cannot be emitted or compiled, :class:`TargetError` without NVRTC.
    """
    emitted = emit_cuda(nest, target, ranges)
    special: dict[str, DeviceKernel] = {}
    if nest_for is None or not emitted.has_tensor_products:
        return _compiled(emitted, nest, target.features, ptx_arch(target.features))
    for own in target.special:
        made = emit_cuda(nest_for(own), own, ranges)
        if made.source != emitted.source:
            special |= {arch: _compiled(made, nest, [arch], arch) for arch in own.features}
    others = [arch for arch in target.features if arch not in special]
    return dataclasses.replace(_compiled(emitted, nest, others, ptx_arch(target.features)), special=special)


def _compiled(emitted: EmittedCuda, nest: LoopNest, archs: Sequence[str], ptx: str) -> DeviceKernel:
    code = compile_source(full_source(emitted), nest.name, archs, ptx)
    return DeviceKernel(emitted.source, emitted.launches, code, emitted.workspace, nest.sizes)


def warn_of_spills(kernels: Mapping[str, DeviceKernel]) -> None:
    """Warn of kernels some of whose values do not fit the registers: they are right, but slow."""
    spilled = {
        symbol: sum(used.spill_store_bytes for functions in _resources(kernel).values() for used in functions.values())
        for symbol, kernel in kernels.items()
    }
    found = {symbol: size for symbol, size in spilled.items() if size}
    if found:
        symbol, size = max(found.items(), key=lambda item: item[1])
        warnings.warn(
            f"{len(found)} kernels need more registers than a thread has and keep values in memory, which is slow; the "
            f"most does {symbol} ({size} bytes)",
            stacklevel=2,
        )


def build_device_module(
    program: Program,
    kernels: Mapping[str, DeviceKernel],
    weights: Iterable[tuple[int, np.ndarray[Any, Any]]],
    weight_bytes: int,
    info: ModuleInfo,
    target: Target,
) -> ModuleParts:
    """A program as a module for a GPU: the kernels' code in one piece, and the plan of what is launched on what."""
    specs, code = _joined(kernels)
    steps = tuple(_step(step, kernels[step.symbol]) for step in program.steps)
    manifest = make_manifest(program, info, weight_bytes, target)
    report = {symbol: _report(kernel) for symbol, kernel in kernels.items()}
    manifest = dataclasses.replace(
        manifest,
        device=DevicePlan(specs, steps),
        metadata={**manifest.metadata, "resources": report},
    )
    return ModuleParts(manifest, code, weights)


def _joined(kernels: Mapping[str, DeviceKernel]) -> tuple[tuple[CodeSpec, ...], bytes]:
    specs: list[CodeSpec] = []
    pieces: list[bytes] = []
    offset = 0
    for symbol, kernel in kernels.items():
        cubins = {arch: made.code.cubins[arch] for arch, made in kernel.by_architecture.items()}
        for arch, image in (*cubins.items(), (PTX, kernel.code.ptx)):
            specs.append(CodeSpec(symbol, arch, offset, len(image)))
            pieces.append(image)
            offset += len(image)
    return tuple(specs), b"".join(pieces)


def _step(step: Step, kernel: DeviceKernel) -> DeviceStep:
    sizes = {size: wrap(given) for size, given in zip(kernel.sizes, step.sizes, strict=True)}
    return DeviceStep(
        symbol=step.symbol,
        operands=tuple(map(_operand, step.operands)),
        sizes=tuple(map(dimension, step.sizes)),
        workspace_bytes=dimension(step.workspace.shared),
        launches=tuple(_launch(launch, sizes) for launch in kernel.launches),
        special={
            arch: tuple(_launch(launch, sizes) for launch in made.launches) for arch, made in kernel.special.items()
        },
    )


def _operand(operand: Operand) -> OperandSpec:
    return OperandSpec(operand.storage.value, operand.position, dimension(operand.offset))


def _launch(launch: Launch, sizes: Mapping[Var, Expr]) -> LaunchSpec:
    grid = substitute(launch.grid, sizes) if isinstance(launch.grid, Expr) else launch.grid
    return LaunchSpec(launch.function, dimension(grid), launch.block, launch.shared_bytes)


def _resources(kernel: DeviceKernel) -> Mapping[str, Mapping[str, Resources]]:
    """What each function takes, by architecture."""
    return {arch: made.code.resources[arch] for arch, made in kernel.by_architecture.items()}


def _report(kernel: DeviceKernel) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """The same in plain numbers: registers and bytes."""
    return {
        arch: {name: dataclasses.asdict(used) for name, used in functions.items()}
        for arch, functions in _resources(kernel).items()
    }
