"""Launches with sanitizers: each array that a kernel is given is a piece of memory of its own.

A module's arrays lie side by side in one buffer, where an access beyond one of them is none beyond the buffer. So while
a module runs, each launch that is not like one before is run a second time, on copies of just what its operands are.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from cuda_harness import CpuKernels, HarnessDevice, SanitizedKernels, compile_for_cpu
from cuda_harness.device import HarnessFunction, HarnessStream
from cuda_harness.model import function_names, kernels_of
from device_models import Compiled, lower_together

from polycomp.codegen.cuda.emit import EmittedCuda, emit_cuda
from polycomp.driver import device
from polycomp.expr import Expr, const, simplify, substitute
from polycomp.loops import LoopNest
from polycomp.runtime.cuda.layout import STATUS_BYTES
from polycomp.runtime.cuda.module import CudaModule
from polycomp.runtime.image import assemble
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The loops of a kernel, and what was made of them."""

    nest: LoopNest
    emitted: EmittedCuda

    def lengths(self, sizes: Sequence[int]) -> list[int]:
        """The bytes of inputs, outputs, workspace and status, for the values of the nest's sizes."""
        known = {v: const(n) for v, n in zip(self.nest.sizes, sizes, strict=True)}

        def number(dim: Dim) -> int:
            value = simplify(substitute(dim, known), {}) if isinstance(dim, Expr) else const(dim)
            return int(value.value)  # type: ignore[attr-defined]

        buffers = (*self.nest.inputs, *self.nest.outputs)
        lengths = [int(np.prod([number(d) for d in b.shape], dtype=np.int64)) * b.dtype.bytes for b in buffers]
        return [*lengths, number(self.emitted.workspace.shared), STATUS_BYTES]


class SeparateDevice(HarnessDevice):
    """Runs launches once more with sanitizers. ``tried`` are the functions, each with the values of its sizes."""

    def __init__(self, kernels: CpuKernels, sanitized: SanitizedKernels, by_function: Mapping[str, Kernel]) -> None:
        super().__init__({"model": kernels})
        self.sanitized, self.by_function = sanitized, by_function
        self.tried: set[tuple[str, tuple[int, ...]]] = set()

    def new_stream(self) -> HarnessStream:
        return _SeparateStream(self)


class _SeparateStream(HarnessStream):
    def __init__(self, device: SeparateDevice) -> None:
        super().__init__(device)
        self._separate = device

    def _run(self, function: HarnessFunction, grid: int, block: int, shared_bytes: int, words: Sequence[int]) -> None:
        separate, name = self._separate, function.name
        kernel = separate.by_function[name]
        count = len(kernel.nest.inputs) + len(kernel.nest.outputs)
        sizes = tuple(words[count:-2])
        pointers, lengths = [*words[:count], *words[-2:]], kernel.lengths(sizes)
        new = (name, sizes) not in separate.tried
        separate.tried.add((name, sizes))
        own = [_memory(p, n).copy() for p, n in zip(pointers, lengths, strict=True)] if new else []
        super()._run(function, grid, block, shared_bytes, words)
        if not new:
            return
        separate.sanitized.launch(name, grid, block, shared_bytes, [*own[:-2], *sizes, *own[-2:]], separate.order)
        for number, (pointer, copy) in enumerate(zip(pointers, own, strict=True)):
            same = np.array_equal(_memory(pointer, copy.nbytes), copy)
            assert same, f"{name} with {sizes}: argument {number} is another one on memory of its own"


def _memory(address: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes at an address."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


def compile_separately(models: Mapping[str, Any]) -> Compiled:
    """Compile models whose modules run on a :class:`SeparateDevice` each."""
    with _kept_kernels() as by_function:
        lowered = lower_together(models)
    sources = lowered.all_sources()
    functions = [name for source in sources.values() for name in function_names(source)]
    sanitized = compile_for_cpu(list(sources.values()), functions, sanitize=True)
    assert isinstance(sanitized, SanitizedKernels)
    kernels = kernels_of(sources)
    modules = {
        name: CudaModule(assemble(parts), SeparateDevice(kernels, sanitized, by_function))
        for name, parts in lowered.parts.items()
    }
    return Compiled(modules, lowered.failed)


@contextmanager
def _kept_kernels() -> Iterator[dict[str, Kernel]]:
    """By function, what is compiled meanwhile."""
    kept: dict[str, Kernel] = {}

    def keep(nest: LoopNest, *arguments: Any) -> EmittedCuda:
        emitted = emit_cuda(nest, *arguments)
        kept.update({launch.function: Kernel(nest, emitted) for launch in emitted.launches})
        return emitted

    with mock.patch.object(device, "emit_cuda", keep):
        yield kept
