"""A GPU as cupy shows it. Nothing is decided here: each method is one or two calls of cupy's."""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from polycomp.errors import ExecutionError, ModuleFileError, OutOfMemoryError, TargetError
from polycomp.runtime.binding import Shape
from polycomp.runtime.cuda.device import MemoryInfo
from polycomp.runtime.memory import Bytes, address_of

_OLDEST_CUPY = (13, 0)
_INSTALL = "pip install 'polycomp[cuda]'"
_OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
_LONGEST_HOLD = 0.2
"""Seconds. A queue of work that is full waits for room, and so would never release what it waits for."""


def open_device() -> CupyDevice:
    """The GPU that is cupy's current one: the first, unless ``cupy.cuda.Device(n).use()`` chose another.

    Raises :class:`TargetError` when cupy is missing or too old, or there is no GPU that can be used.
    """
    cupy = _import_cupy()
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
        number = runtime.getDevice() if count else 0
    except runtime.CUDARuntimeError as error:
        raise TargetError(_no_device(str(error))) from error
    if not count:
        raise TargetError(_no_device("cudaErrorNoDevice"))
    return CupyDevice(cupy, number)


def _import_cupy() -> Any:
    try:
        cupy: Any = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise TargetError(_broken(error)) from error
        raise TargetError(
            f"modules for CUDA run with cupy, which is not installed: {_INSTALL}, or compile the model for the CPU"
        ) from None
    except (ImportError, OSError) as error:
        raise TargetError(_broken(error)) from error
    if _version(cupy.__version__) < _OLDEST_CUPY:
        needed = ".".join(map(str, _OLDEST_CUPY))
        raise TargetError(
            f"modules for CUDA run with cupy {needed} or later, but cupy {cupy.__version__} is installed: {_INSTALL}"
        )
    return cupy


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def _broken(error: BaseException) -> str:
    return f"modules for CUDA run with cupy, which is installed, but cannot be imported: {error}; {_INSTALL} again"


def _no_device(reason: str) -> str:
    return (
        f"there is no CUDA device that can be used ({reason}); run the module on a machine with a GPU of NVIDIA's and "
        f"its driver, or compile the model for the CPU"
    )


class CupyDevice:
    """See :class:`polycomp.runtime.cuda.device.Device`."""

    def __init__(self, cupy: Any, number: int) -> None:
        """Use :func:`open_device` instead. ``cupy`` is the package."""
        self._cupy = cupy
        self._cuda = cupy.cuda
        self.number = number
        self.architecture = f"sm_{cupy.cuda.Device(number).compute_capability}"
        self.name: str = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()

    def active(self) -> AbstractContextManager[Any]:
        return _Active(self._cuda, self.number, self.name)

    def memory(self) -> MemoryInfo:
        return MemoryInfo(*map(int, self._cuda.runtime.memGetInfo()))

    def allocate(self, size: int) -> _Memory:
        """Not from cupy's pool, whose memory other work on cupy's current stream may still use."""
        try:
            return _Memory(self._new_memory(size))
        except (self._cuda.runtime.CUDARuntimeError, MemoryError) as error:
            if not _is_shortage(error):
                raise
            raise OutOfMemoryError(f"the GPU {self.name!r} has not enough memory for {size} bytes") from error

    def _new_memory(self, size: int) -> Any:
        try:
            return self._cuda.Memory(size)
        except (self._cuda.runtime.CUDARuntimeError, MemoryError):
            self._cupy.get_default_memory_pool().free_all_blocks()
        return self._cuda.Memory(size)

    def host_memory(self, size: int) -> Bytes:
        if size == 0:
            return np.empty(0, np.uint8)
        try:
            pinned = self._cuda.alloc_pinned_memory(size)
        except (self._cuda.runtime.CUDARuntimeError, MemoryError) as error:
            if not _is_shortage(error):
                raise
            raise OutOfMemoryError(f"there is not enough memory of the host for {size} bytes") from error
        return np.frombuffer(pinned, np.uint8, size)

    def load_code(self, image: bytes) -> _Code:
        module = self._cuda.Module()
        try:
            module.load(image)
        except self._cuda.driver.CUDADriverError as error:
            raise ModuleFileError(
                f"the driver of the GPU {self.name!r} does not accept the module's code: {error}; install a later "
                f"driver, or compile the model again"
            ) from error
        return _Code(self._cuda, module)

    def new_stream(self) -> _Stream:
        return _Stream(self._cuda)

    def new_array(self, shape: Shape, dtype: np.dtype[Any]) -> Any:
        try:
            return self._cupy.empty(shape, dtype)
        except MemoryError as error:
            raise OutOfMemoryError(f"the GPU {self.name!r} has not enough memory for an output: {error}") from error

    def from_dlpack(self, value: Any) -> Any:
        return self._cupy.from_dlpack(value)

    def contiguous(self, value: Any) -> Any:
        return self._cupy.ascontiguousarray(self._cupy.asarray(value))

    def number_of(self, address: int) -> int:
        runtime = self._cuda.runtime
        found = runtime.pointerGetAttributes(address)
        on_device = found.type in (runtime.memoryTypeDevice, runtime.memoryTypeManaged)
        return int(found.device) if on_device else -1

    def nanoseconds(self, start: Any, end: Any) -> int:
        milliseconds: float = self._cuda.get_elapsed_time(start, end)
        return round(milliseconds * 1e6)


def _is_shortage(error: Exception) -> bool:
    return isinstance(error, MemoryError) or str(error).startswith(_OUT_OF_MEMORY)


class _Active:
    """Makes a GPU the current one of a thread, and errors of the driver ones of polycomp's."""

    def __init__(self, cuda: Any, number: int, name: str) -> None:
        self._device = cuda.Device(number)
        self._errors = (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)
        self._name = name

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._device.__exit__(kind, error, trace)
        if isinstance(error, self._errors):
            raise ExecutionError(f"the GPU {self._name!r} failed: {error}") from error


class _Memory:
    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.address: int = memory.ptr


class _Code:
    def __init__(self, cuda: Any, module: Any) -> None:
        self._driver = cuda.driver
        self._module = module

    def function(self, name: str, shared_bytes: int) -> Any:
        try:
            found = self._module.get_function(name)
            if shared_bytes:
                limit = self._driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._driver.funcSetAttribute(found.ptr, limit, shared_bytes)
        except self._driver.CUDADriverError as error:
            raise ModuleFileError(f"the module's kernel {name!r} cannot be used on this GPU: {error}") from error
        return found


class _Graph:
    def __init__(self, graph: Any, stream: Any) -> None:
        self._graph = graph
        self._stream = stream

    def launch(self) -> None:
        self._graph.launch(self._stream)


class _Stream:
    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._runtime = cuda.runtime
        # Blocking streams must not be captured from while other threads use the default stream.
        self._stream = cuda.Stream(non_blocking=True)

    def upload(self, address: int, source: Bytes) -> None:
        self._copy(address, address_of(source), source.nbytes, self._runtime.memcpyHostToDevice)

    def download(self, target: Bytes, address: int) -> None:
        self._copy(address_of(target), address, target.nbytes, self._runtime.memcpyDeviceToHost)

    def copy(self, target: int, source: int, size: int) -> None:
        self._copy(target, source, size, self._runtime.memcpyDeviceToDevice)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._runtime.memcpyAsync(target, source, size, kind, self._stream.ptr)

    def clear(self, address: int, size: int) -> None:
        self._runtime.memsetAsync(address, 0, size, self._stream.ptr)

    def launch(self, function: Any, grid: int, block: int, shared_bytes: int, arguments: Sequence[int]) -> None:
        words = tuple(map(np.int64, arguments))  # passed by value, as they are
        function((grid, 1, 1), (block, 1, 1), words, shared_mem=shared_bytes, stream=self._stream)

    def capture(self, enqueue: Callable[[], None]) -> _Graph:
        self._stream.begin_capture()
        try:
            enqueue()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # what the driver says of the aborted capture
                self._stream.end_capture()
            raise
        return _Graph(self._stream.end_capture(), self._stream)

    def wait_for(self, other: int | None) -> None:
        handle = self._cuda.get_current_stream().ptr if other is None else other
        event = self._cuda.Event(disable_timing=True)
        self._runtime.eventRecord(event.ptr, handle)
        self._runtime.streamWaitEvent(self._stream.ptr, event.ptr)

    def record(self) -> Any:
        event = self._cuda.Event()
        event.record(self._stream)
        return event

    def hold(self) -> Callable[[], None]:
        gate = threading.Event()
        self._stream.launch_host_func(lambda gate: gate.wait(_LONGEST_HOLD), gate)
        return gate.set

    def synchronize(self) -> None:
        self._stream.synchronize()
