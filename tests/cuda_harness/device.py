"""A device for polycomp's CUDA runtime that is the memory of the host, and runs kernels on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from cuda_harness.memory import Bytes, GuardedMemory
from cuda_harness.run import CpuKernels, Order, Region
from polycomp.errors import ModuleFileError, OutOfMemoryError
from polycomp.runtime.cuda.device import MemoryInfo

_ALIGNMENT = 256


class HarnessBuffer(GuardedMemory):
    """Memory of the device: a ``Buffer`` of the protocol."""

    def __init__(self, size: int) -> None:
        super().__init__(size, _ALIGNMENT)


class HarnessArray:
    """An array in memory of the device, row-major."""

    def __init__(self, buffer: HarnessBuffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.buffer, self.shape, self.dtype = buffer, shape, dtype

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = (self.buffer.address, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "version": 3, "stream": None}

    def numpy(self) -> np.ndarray[Any, Any]:
        """Its elements, not a copy."""
        return self.buffer.bytes.view(self.dtype).reshape(self.shape)


class HarnessDevice:
    """A ``Device`` of polycomp.runtime.cuda.device.

    ``kernels`` have what loaded code would: its bytes are not looked at. Work is done when it is enqueued, and what a
    kernel does wrong is raised there, as :class:`LaunchError`. ``order`` may be changed between runs; ``launches`` are
    the names of the functions that ran. ``memory_bytes`` is how much may be allocated.
    """

    number = 0
    name = "CUDA test harness"

    def __init__(
        self,
        kernels: Mapping[str, CpuKernels],
        architecture: str = "sm_90",
        order: Order = Order.FORWARD,
        memory_bytes: int = 8 << 30,
    ) -> None:
        self.architecture = architecture
        self.order = order
        self.launches: list[str] = []
        self._functions = {name: one for one in kernels.values() for name in one.functions}
        self._memory_bytes = memory_bytes
        self._buffers: weakref.WeakSet[HarnessBuffer] = weakref.WeakSet()
        self._lock = threading.Lock()

    def active(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def memory(self) -> MemoryInfo:
        return MemoryInfo(self._memory_bytes - sum(b.size for b in self.buffers()), self._memory_bytes)

    def allocate(self, size: int) -> HarnessBuffer:
        if size > self.memory().free:
            raise OutOfMemoryError(f"{self.name!r} has not enough memory for {size} bytes")
        buffer = HarnessBuffer(size)
        with self._lock:
            self._buffers.add(buffer)
        return buffer

    def buffers(self) -> list[HarnessBuffer]:
        """All that are alive."""
        with self._lock:
            return list(self._buffers)

    def host_memory(self, size: int) -> Bytes:
        return np.empty(size, np.uint8)

    def load_code(self, image: bytes) -> HarnessCode:
        return HarnessCode(self._functions)

    def new_stream(self) -> HarnessStream:
        return HarnessStream(self)

    def new_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HarnessArray:
        return HarnessArray(self.allocate(math.prod(shape) * dtype.itemsize), shape, dtype)

    def array(self, value: np.ndarray[Any, Any]) -> HarnessArray:
        """A copy on the device."""
        copy = self.new_array(value.shape, value.dtype)
        copy.numpy()[...] = value
        return copy

    def from_dlpack(self, value: Any) -> Any:
        raise BufferError("the test harness has no DLPack")

    def contiguous(self, value: Any) -> HarnessArray:
        return self.array(np.asarray(_HostView(value.__cuda_array_interface__)))

    def number_of(self, address: int) -> int:
        inside = (b.address <= address < b.address + max(b.size, 1) for b in self.buffers())
        return self.number if any(inside) else -1

    def nanoseconds(self, start: int, end: int) -> int:
        return end - start


class HarnessCode:
    """A ``Code`` of the protocol."""

    def __init__(self, functions: Mapping[str, CpuKernels]) -> None:
        self._functions = functions

    def function(self, name: str, shared_bytes: int) -> HarnessFunction:
        if name not in self._functions:
            raise ModuleFileError(f"the harness has no kernel {name!r}, only {', '.join(self._functions)}")
        return HarnessFunction(self._functions[name], name, shared_bytes)


class HarnessFunction:
    """``shared_bytes`` is the most dynamic shared memory of a launch."""

    def __init__(self, kernels: CpuKernels, name: str, shared_bytes: int) -> None:
        self.kernels, self.name, self.shared_bytes = kernels, name, shared_bytes


class HarnessStream:
    """A ``Stream`` of the protocol."""

    def __init__(self, device: HarnessDevice) -> None:
        self._device = device
        self._captured: list[Callable[[], None]] | None = None

    def upload(self, address: int, source: Bytes) -> None:
        self._enqueue(lambda: self._move(address, source.ctypes.data, source.nbytes, (address,)))

    def download(self, target: Bytes, address: int) -> None:
        self._enqueue(lambda: self._move(target.ctypes.data, address, target.nbytes, (address,)))

    def copy(self, target: int, source: int, size: int) -> None:
        self._enqueue(lambda: self._move(target, source, size, (target, source)))

    def clear(self, address: int, size: int) -> None:
        self._check((address,), size)
        self._enqueue(lambda: ctypes.memset(address, 0, size))

    def launch(
        self, function: HarnessFunction, grid: int, block: int, shared_bytes: int, arguments: Sequence[int]
    ) -> None:
        assert grid > 0 and shared_bytes <= function.shared_bytes
        self._enqueue(lambda: self._run(function, grid, block, shared_bytes, arguments))

    def capture(self, enqueue: Callable[[], None]) -> HarnessGraph:
        work: list[Callable[[], None]] = []
        self._captured = work
        try:
            enqueue()
        finally:
            self._captured = None
        return HarnessGraph(work)

    def wait_for(self, other: int | None) -> None:
        pass

    def record(self) -> int:
        return time.perf_counter_ns()

    def hold(self) -> Callable[[], None]:
        return lambda: None

    def synchronize(self) -> None:
        pass

    def _enqueue(self, work: Callable[[], Any]) -> None:
        if self._captured is None:
            work()
        else:
            self._captured.append(work)

    def _move(self, target: int, source: int, size: int, on_device: Sequence[int]) -> None:
        self._check(on_device, size)
        ctypes.memmove(target, source, size)

    def _check(self, addresses: Sequence[int], size: int) -> None:
        for address in addresses:
            inside = (b.address <= address and address + size <= b.address + b.size for b in self._device.buffers())
            assert any(inside), f"{size} bytes at {address:#x} are not in one buffer of the device"

    def _run(self, function: HarnessFunction, grid: int, block: int, shared_bytes: int, words: Sequence[int]) -> None:
        device = self._device
        device.launches.append(function.name)
        regions = [Region(f"a buffer of {b.size} bytes", b.address, b.size) for b in device.buffers()]
        function.kernels.launch_words(function.name, grid, block, shared_bytes, words, device.order, regions)


class HarnessGraph:
    """A ``Graph`` of the protocol."""

    def __init__(self, work: Sequence[Callable[[], None]]) -> None:
        self._work = work

    def launch(self) -> None:
        for one in self._work:
            one()


class _HostView:
    """Memory of the device as numpy sees it."""

    def __init__(self, interface: Mapping[str, Any]) -> None:
        self.__array_interface__ = dict(interface)
