"""A machine with a GPU, for tests of what users call: kernels that are compiled on it are executed on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from cuda_harness import HarnessDevice, compile_for_cpu, harness_available

from polycomp import native
from polycomp.codegen.cuda.nvrtc import find_nvrtc
from polycomp.driver import device, pipeline
from polycomp.runtime.cuda import cupydevice, module

needs_nvrtc = pytest.mark.skipif(find_nvrtc() is None, reason="NVRTC is not installed: pip install polycomp[nvrtc]")
needs_harness = pytest.mark.skipif(not harness_available(), reason="kernels are executed by what g++ 12 compiles")


class Machine:
    """Opens a device that knows all kernels that were compiled before; ``devices`` are those opened."""

    def __init__(self) -> None:
        self._compiled: dict[str, device.DeviceKernel] = {}
        self.devices: list[HarnessDevice] = []

    def build(self, program: Any, kernels: Mapping[str, device.DeviceKernel], *arguments: Any) -> Any:
        """In the place of ``build_device_module``."""
        self._compiled |= kernels
        return device.build_device_module(program, kernels, *arguments)

    def open_device(self) -> HarnessDevice:
        """In the place of the runtime's."""
        found = {s: k.by_architecture.get("sm_90a", k) for s, k in self._compiled.items()}
        functions = {s: [launch.function for launch in k.launches] for s, k in found.items()}
        kernels = {s: compile_for_cpu(k.source, functions[s]) for s, k in found.items() if functions[s]}
        self.devices.append(HarnessDevice(kernels))  # type: ignore[arg-type]
        return self.devices[-1]

    def array(self, value: np.ndarray[Any, Any]) -> Any:
        """A copy on the device that was opened last."""
        return self.devices[-1].array(value)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Machine]:
    """A machine with a GPU and an empty cache."""
    made = Machine()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "build_device_module", made.build)
    monkeypatch.setattr(native, "build_device_module", made.build)
    for room in (cupydevice, module):
        monkeypatch.setattr(room, "open_device", made.open_device)
    yield made


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which cupy, and so any GPU, is missing."""
    monkeypatch.setitem(sys.modules, "cupy", None)
