"""One kernel from tensor expressions to a relocatable object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.errors import CompileError
from polycomp.expr import Interval, Var
from polycomp.loops import LoopNest, lower_kernel
from polycomp.loops.program import Workspace
from polycomp.poly.kernel import Kernel
from polycomp.poly.legality import ViolationKind, explain, verify_kernel
from polycomp.schedules.library import schedule_kernel
from polycomp.target import Target
from polycomp.te import Tensor


class KernelTask(NamedTuple):
    """A kernel to compile: the arguments of :func:`compile_kernel`."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ranges: Mapping[Var, Interval]
    target: Target


class CompiledKernel(NamedTuple):
    """``object`` is ELF with the function of the kernel's name, which wants ``workspace`` and ``sizes`` in order."""

    object: bytes
    workspace: Workspace
    sizes: tuple[Var, ...]


def compile_kernel(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    ranges: Mapping[Var, Interval],
    target: Target,
) -> CompiledKernel:
    """Schedule, lower and compile the expressions of ``outputs``."""
    nest = loop_nest(name, inputs, outputs, ranges, target)
    emitted = emit_kernel(nest, target)
    return CompiledKernel(compile_ir(emitted.ir, target), emitted.workspace, nest.sizes)


def loop_nest(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    ranges: Mapping[Var, Interval],
    target: Target,
) -> LoopNest:
    """The scheduled loops of the expressions of ``outputs``, before code generation."""
    kernel = schedule_kernel(name, inputs, outputs, ranges, target)
    _verify(kernel)
    return lower_kernel(kernel)


def _verify(kernel: Kernel) -> None:
    """Refuse a schedule that is surely wrong. One that isl cannot decide in its time is no reason to fail: the library's
    schedules are legal by construction, and this finds where they are not."""
    violation = verify_kernel(kernel).violation
    if violation is not None and violation.kind is not ViolationKind.UNKNOWN:
        raise CompileError(f"the schedule of kernel {kernel.name!r} is illegal: {explain(violation)}")
