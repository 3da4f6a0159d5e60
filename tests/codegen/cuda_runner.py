"""Loop nests as CUDA C, executed on the CPU by the harness, and small nests made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from cuda_harness import Order, compile_for_cpu, harness_available
from kernel_runner import extent, filler

from polycomp.codegen.cuda.emit import EmittedCuda, emit_cuda
from polycomp.codegen.cuda.nvrtc import find_nvrtc
from polycomp.expr import Expr, Ranges, Var, const, wrap
from polycomp.loops import For, LoopKind, LoopNest, Stmt
from polycomp.loops.interpreter import interpret
from polycomp.target import parse_target

CUDA = parse_target("cuda")
ORDERS = (Order.FORWARD, Order.BACKWARD)

needs_harness = pytest.mark.skipif(not harness_available(), reason="needs g++ 12 or later")
needs_nvrtc = pytest.mark.skipif(find_nvrtc() is None, reason="NVRTC is not installed")


@dataclasses.dataclass
class CudaKernels:
    """Compiled nests, several at once because each run of g++ takes a while. Their names differ."""

    nests: Sequence[LoopNest]
    ranges: Ranges | None = None
    races: bool = False

    def __post_init__(self) -> None:
        self.emitted = {nest.name: emit_cuda(nest, CUDA, self.ranges) for nest in self.nests}
        functions = [launch.function for e in self.emitted.values() for launch in e.launches]
        # g++ 12 takes some kernels that store through a restrict pointer for functions without effects.
        sources = [e.source.replace("__global__", "__global__ __attribute__((noipa))") for e in self.emitted.values()]
        self.compiled = compile_for_cpu(sources, functions, races=self.races)

    def __call__(
        self,
        nest: LoopNest,
        inputs: Sequence[np.ndarray],
        sizes: Mapping[str, int] | None = None,
        order: Order = Order.FORWARD,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The outputs, and the three words of the status afterwards."""
        sizes = sizes or {}
        known = {v: const(sizes[v.name]) for v in nest.sizes}
        emitted: EmittedCuda = self.emitted[nest.name]
        arrays = [np.ascontiguousarray(x, b.dtype.numpy) for x, b in zip(inputs, nest.inputs, strict=True)]
        outputs = [filler(tuple(extent(d, known) for d in b.shape), b.dtype) for b in nest.outputs]
        workspace = np.full(extent(emitted.workspace.shared, known), 0xEE, np.uint8)
        status = np.zeros(3, np.int64)
        arguments = [*arrays, *outputs, *(sizes[v.name] for v in nest.sizes), workspace, status]
        for launch in emitted.launches:
            grid = extent(launch.grid, known)
            if grid:
                self.compiled.launch(launch.function, grid, launch.block, launch.shared_bytes, arguments, order)
        return outputs, status


def emitted(nest: LoopNest, ranges: Ranges | None = None) -> str:
    """The kernel's source without the prelude."""
    return emit_cuda(nest, CUDA, ranges).source


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32) % 97 - 31).reshape(shape)


def loop(var: Var, extent_: int | Expr, body: Stmt, kind: LoopKind = LoopKind.SERIAL) -> For:
    return For(var, const(0), wrap(extent_), kind, body)


def blocks(var: Var, extent_: int | Expr, body: Stmt) -> For:
    return loop(var, extent_, body, LoopKind.BLOCK)


def threads(var: Var, extent_: int, body: Stmt) -> For:
    return loop(var, extent_, body, LoopKind.THREAD)


def assert_as_interpreted(
    nest: LoopNest,
    *inputs: np.ndarray,
    sizes: Sequence[Mapping[str, int]] = ({},),
    ranges: Ranges | None = None,
    rtol: float = 1e-6,
) -> str:
    """The kernel gives what the interpreter gives, in each order and without races; returns its source."""
    kernels, watched = CudaKernels([nest], ranges), CudaKernels([nest], ranges, races=True)
    for given in sizes:
        expected = interpret(nest, inputs, given)
        runs = [kernels(nest, inputs, given, order) for order in ORDERS] + [watched(nest, inputs, given)]
        for results, status in runs:
            assert status.tolist() == [0, 0, 0]
            for result, wanted in zip(results, expected, strict=True):
                np.testing.assert_allclose(result, wanted, rtol=rtol, atol=1e-6)
    return kernels.emitted[nest.name].source
