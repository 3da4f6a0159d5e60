"""Whole models on the harness: compiled as for a GPU, but with g++ in NVRTC's place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from unittest import mock

from cuda_harness.device import HarnessDevice
from cuda_harness.run import CpuKernels, Order, compile_for_cpu
from polycomp.codegen.cuda.nvrtc import DeviceCode
from polycomp.codegen.cuda.prelude import PRELUDE
from polycomp.codegen.cuda.warpgroups import warpgroup_functions
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import compile_graph, compile_parts
from polycomp.graph import Graph
from polycomp.options import Options
from polycomp.runtime import ModuleParts
from polycomp.runtime.cuda.module import CudaModule
from polycomp.runtime.image import assemble
from polycomp.target import parse_target

_ARCHITECTURE = "sm_90"


@dataclasses.dataclass
class _Sources:
    """Stands for NVRTC: keeps what it is given."""

    by_name: dict[str, str] = dataclasses.field(default_factory=dict)

    def compile(self, source: str, name: str, archs: Sequence[str], ptx: str) -> DeviceCode:
        assert source.startswith(PRELUDE)
        emitted = source.removeprefix(PRELUDE)
        if archs:  # else it is for GPUs that are yet to come
            self.by_name[name] = emitted.removeprefix(warpgroup_functions(emitted))
        return DeviceCode(dict.fromkeys(archs, b"cubin"), b"ptx", {arch: {} for arch in archs})


def run_on_harness(
    model: Any,
    order: Order = Order.FORWARD,
    races: bool = False,
    precision: str = "float32",
    architecture: str = _ARCHITECTURE,
) -> CudaModule:
    """A module for ``model``, an ONNX model or a graph, whose kernels run on the CPU, threads in ``order``.

    With ``races``, threads that touch the same memory with no barrier in between are found while it runs.
    """
    parts, sources = device_parts(model, precision, architecture)
    kernels = kernels_of(sources, races)
    return CudaModule(assemble(parts), HarnessDevice({"model": kernels}, order=order))


def device_parts(
    model: Any, precision: str = "float32", architecture: str = _ARCHITECTURE
) -> tuple[ModuleParts, dict[str, str]]:
    """The parts of a module whose code is no code, and the CUDA C of its kernels by symbol, without the prelude."""
    found = _Sources()
    options = Options(parse_target(f"cuda,arch={architecture}"), cache=False, jobs=1, precision=precision)
    with mock.patch("polycomp.driver.device.compile_source", found.compile):
        if isinstance(model, Graph):
            return compile_graph(model, options).parts, found.by_name
        return compile_parts(model, options, None, Observer()), found.by_name


def kernels_of(sources: dict[str, str], races: bool = False) -> CpuKernels:
    """All functions of some kernels, compiled for the CPU."""
    functions = [name for source in sources.values() for name in function_names(source)]
    made = compile_for_cpu(list(sources.values()), functions, races=races)
    assert isinstance(made, CpuKernels)
    return made


def function_names(source: str) -> list[str]:
    """The kernels that CUDA C defines."""
    heads = source.split('extern "C" __global__')[1:]
    return [head.split("(\n")[0].split()[-1] for head in heads]
