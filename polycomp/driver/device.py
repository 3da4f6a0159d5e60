"""Kernels for a GPU: their code, and the module that is made of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from polycomp.codegen.cuda.emit import Launch, emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import DeviceCode, compile_source
from polycomp.driver.manifest import ModuleInfo, dimension, make_manifest
from polycomp.expr import Expr, Interval, Var, substitute, wrap
from polycomp.loops import LoopNest
from polycomp.loops.program import Operand, Program, Step, Workspace
from polycomp.runtime.cuda.plan import PTX, CodeSpec, DevicePlan, DeviceStep, LaunchSpec, OperandSpec
from polycomp.runtime.image import ModuleParts
from polycomp.target import Target


@dataclasses.dataclass(frozen=True)
class DeviceKernel:
    """A kernel's ``launches`` in order, whose functions are in ``code``, and the CUDA C that it was compiled from.
    Grids are over the kernel's own ``sizes``."""

    source: str
    launches: tuple[Launch, ...]
    code: DeviceCode
    workspace: Workspace
    sizes: tuple[Var, ...]


def compile_device_kernel(nest: LoopNest, target: Target, ranges: Mapping[Var, Interval]) -> DeviceKernel:
    """Compile a nest for all architectures of ``target``.

    Raises :class:`CompileError` for what cannot be emitted or compiled, :class:`TargetError` without NVRTC.
    """
    emitted = emit_cuda(nest, target, ranges)
    code = compile_source(full_source(emitted), nest.name, target.features)
    return DeviceKernel(emitted.source, emitted.launches, code, emitted.workspace, nest.sizes)


def warn_of_spills(kernels: Mapping[str, DeviceKernel]) -> None:
    """Warn of kernels some of whose values do not fit the registers: they are right, but slow."""
    spilled = {
        symbol: sum(r.spill_store_bytes for functions in kernel.code.resources.values() for r in functions.values())
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
    report = {symbol: _resources(kernel) for symbol, kernel in kernels.items()}
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
        for arch, image in (*kernel.code.cubins.items(), (PTX, kernel.code.ptx)):
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
    )


def _operand(operand: Operand) -> OperandSpec:
    return OperandSpec(operand.storage.value, operand.position, dimension(operand.offset))


def _launch(launch: Launch, sizes: Mapping[Var, Expr]) -> LaunchSpec:
    grid = substitute(launch.grid, sizes) if isinstance(launch.grid, Expr) else launch.grid
    return LaunchSpec(launch.function, dimension(grid), launch.block, launch.shared_bytes)


def _resources(kernel: DeviceKernel) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """What each function takes, by architecture: registers and bytes."""
    return {
        arch: {name: dataclasses.asdict(used) for name, used in functions.items()}
        for arch, functions in kernel.code.resources.items()
    }
