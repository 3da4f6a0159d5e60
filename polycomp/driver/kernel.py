"""One kernel from tensor expressions to a relocatable object, or to code for a GPU."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import NamedTuple

from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.decisions import Decisions
from polycomp.driver.device import DeviceKernel, compile_device_kernel
from polycomp.errors import CompileError, PolycompError, ScheduleError
from polycomp.expr import Interval, Var
from polycomp.loops import LoopNest, lower_kernel
from polycomp.loops.program import Workspace
from polycomp.poly.kernel import Kernel
from polycomp.poly.legality import DEFAULT_QUOTA, ViolationKind, explain, verify_kernel
from polycomp.schedules.library import schedule_kernel
from polycomp.target import Target
from polycomp.te import Tensor

_LIBRARY = Decisions()  # all left to the schedule library

_GPU_QUOTA = 30_000
"""Operations of isl for the proof of a kernel for GPUs. Loops over threads that are made of several axes leave
quotients of quotients, on which isl takes minutes for what it does not decide in a moment."""


class KernelTask(NamedTuple):
    """A kernel to compile: the arguments of :func:`compile_kernel`."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ranges: Mapping[Var, Interval]
    target: Target
    decisions: Decisions = _LIBRARY
    advised: bool = False


class KernelError(CompileError):
    """Kernel ``symbol`` cannot be compiled for ``reason``. Travels from a compile process to its parent."""

    def __init__(self, symbol: str, reason: str) -> None:
        super().__init__(symbol, reason)
        self.symbol, self.reason = symbol, reason

    def __str__(self) -> str:
        return f"kernel {self.symbol!r} cannot be compiled: {self.reason}"


class CompiledKernel(NamedTuple):
    """``object`` is ELF with the function of the kernel's name, which wants ``workspace`` and ``sizes`` in order; or
    there is a kernel for a GPU, ``device``, instead.

    ``refused`` says why decisions that were only advice were not taken; "" when they were, or there were none.
    """

    object: bytes
    workspace: Workspace
    sizes: tuple[Var, ...]
    refused: str = ""
    device: DeviceKernel | None = None


def compile_kernel(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    ranges: Mapping[Var, Interval],
    target: Target,
    decisions: Decisions = _LIBRARY,
    advised: bool = False,
) -> CompiledKernel:
    """Schedule, lower and compile the expressions of ``outputs``.

    Where ``decisions`` are only advice, those that do not fit, or are not proven, are left to the library. Raises
    :class:`KernelError` for whatever goes wrong, with the traceback as a note.
    """
    try:
        nest, refused = loop_nest(name, inputs, outputs, ranges, target, decisions, advised)
        if target.is_gpu:
            definition = (name, inputs, outputs, ranges)

            def nest_for(own: Target) -> LoopNest:
                return loop_nest(*definition, own, decisions, advised=True)[0]

            made = compile_device_kernel(nest, target, ranges, nest_for)
            return CompiledKernel(b"", made.most_workspace, nest.sizes, refused, made)
        emitted = emit_kernel(nest, target)
        return CompiledKernel(compile_ir(emitted.ir, target), emitted.workspace, nest.sizes, refused)
    except Exception as error:
        reason = str(error) if isinstance(error, PolycompError) else f"{type(error).__name__}: {error}"
        failure = KernelError(name, reason)
        failure.add_note(traceback.format_exc())
        raise failure from error


def loop_nest(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    ranges: Mapping[Var, Interval],
    target: Target,
    decisions: Decisions = _LIBRARY,
    advised: bool = False,
) -> tuple[LoopNest, str]:
    """The scheduled loops of the expressions of ``outputs``, before code generation, and why advice was not taken."""
    definition = (name, inputs, outputs, ranges, target)
    refused = ""
    if advised:
        try:
            kernel = schedule_kernel(*definition, decisions)
            _verify(kernel, needs_proof=True)
            return lower_kernel(kernel), ""
        except (CompileError, ScheduleError) as error:
            refused, decisions = str(error), _LIBRARY
    kernel = schedule_kernel(*definition, decisions)
    _verify(kernel, quota=_GPU_QUOTA if target.is_gpu else DEFAULT_QUOTA)
    return lower_kernel(kernel), refused


def _verify(kernel: Kernel, needs_proof: bool = False, quota: int = DEFAULT_QUOTA) -> None:
    """Refuse a schedule that is surely wrong. One that isl cannot decide in its time is no reason to fail: the
    library's schedules are legal by construction, and this finds where they are not. Others need proof."""
    violation = verify_kernel(kernel, quota).violation
    if violation is not None and (needs_proof or violation.kind is not ViolationKind.UNKNOWN):
        raise CompileError(f"its schedule is illegal: {explain(violation)}")
