"""A package that looks like cupy, on memory of the host: addresses are real ones, and kernels are Python functions."""

from __future__ import annotations

import ctypes
import types

import numpy as np


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


def at(address, dtype, count):
    """The memory at an address as an array."""
    kind = np.dtype(dtype)
    return np.frombuffer((ctypes.c_char * (kind.itemsize * count)).from_address(address), kind)


class FakeCupy(types.ModuleType):
    """``kernels`` are by name. ``log`` has the calls that matter; ``devices`` is how many GPUs there are."""

    def __init__(self, kernels=(), version="14.2.0", devices=1, capability="90", free=1 << 20):
        super().__init__("cupy")
        self.__version__ = version
        self.kernels, self.devices, self.capability, self.free = dict(kernels), devices, capability, free
        self.log = []
        self.entered = 0
        self.capturing = None
        self.pool_holds = 0
        self.shared_limit = 1 << 17
        self.failing_sync = None
        self.cuda = self._cuda()

    def _cuda(self):
        runtime = types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=self._device_count,
            getDevice=lambda: 0,
            getDeviceProperties=lambda number: {"name": b"Fake H100"},
            memGetInfo=lambda: (self.free, 1 << 20),
            memcpyHostToDevice=1,
            memcpyDeviceToHost=2,
            memcpyDeviceToDevice=3,
            memcpyAsync=self._memcpy,
            memsetAsync=self._memset,
            eventRecord=lambda event, stream: self.log.append(("event", stream)),
            streamWaitEvent=lambda stream, event: self.log.append(("wait", stream)),
            memoryTypeDevice=2,
            memoryTypeManaged=3,
            pointerGetAttributes=lambda address: types.SimpleNamespace(type=2 if address > 4096 else 0, device=0),
        )
        driver = types.SimpleNamespace(
            CUDADriverError=CUDADriverError,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            funcSetAttribute=self._set_attribute,
        )
        cupy = self

        class Memory:
            def __init__(self, size):
                if size > cupy.free:
                    raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
                self.content = np.full(size + 256, 0xCD, np.uint8)
                self.ptr = -(-self.content.ctypes.data // 256) * 256

        class Device:
            def __init__(self, number):
                assert number == 0
                self.compute_capability = cupy.capability

            def __enter__(self):
                cupy.entered += 1

            def __exit__(self, *error):
                cupy.entered -= 1

        class Module:
            def load(self, image):
                assert cupy.entered and isinstance(image, bytes)
                if image.startswith(b"bad"):
                    raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid")

            def get_function(self, name):
                if name not in cupy.kernels:
                    raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
                return Function(name)

        class Function:
            def __init__(self, name):
                self.name, self.ptr = name, 4321

            def __call__(self, grid, block, args, shared_mem=0, stream=None):
                assert grid[1:] == block[1:] == (1, 1) and all(type(a) is np.int64 for a in args)
                words = [int(a) for a in args]
                cupy.log.append(("launch", self.name, grid[0], block[0], shared_mem, stream.ptr))
                cupy._do(lambda: [cupy.kernels[self.name](number, block[0], *words) for number in range(grid[0])])

        class Stream:
            ptr = 1234

            def __init__(self, non_blocking=False):
                assert non_blocking and cupy.entered

            def begin_capture(self):
                cupy.capturing = []

            def end_capture(self):
                actions, cupy.capturing = cupy.capturing, None
                if actions is None:
                    raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
                return Graph(actions)

            def launch_host_func(self, callback, arg):
                cupy.log.append(("host", callback, arg))

            def synchronize(self):
                if cupy.failing_sync:
                    raise CUDARuntimeError(cupy.failing_sync)

        class Graph:
            def __init__(self, actions):
                self.actions = actions

            def launch(self, stream=None):
                cupy.log.append(("graph", stream.ptr))
                for action in self.actions:
                    action()

        class Event:
            made = 0

            def __init__(self, disable_timing=False):
                Event.made += 1
                self.ptr, self.milliseconds = 99, Event.made * 0.5

            def record(self, stream):
                assert stream.ptr == 1234

        return types.SimpleNamespace(
            runtime=runtime,
            driver=driver,
            Memory=Memory,
            Device=Device,
            Module=Module,
            Stream=Stream,
            Event=Event,
            alloc_pinned_memory=lambda size: bytearray(size + 512),
            get_current_stream=lambda: types.SimpleNamespace(ptr=0),
            get_elapsed_time=lambda start, end: end.milliseconds - start.milliseconds,
        )

    def _device_count(self):
        if not self.devices:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.devices

    def _do(self, action):
        assert self.entered
        if self.capturing is None:
            action()
        else:
            self.capturing.append(action)

    def _memcpy(self, target, source, size, kind, stream):
        assert stream == 1234
        self.log.append(("memcpy", size, kind))
        self._do(lambda: ctypes.memmove(target, source, size))

    def _memset(self, address, value, size, stream):
        assert stream == 1234
        self.log.append(("memset", size, value))
        self._do(lambda: ctypes.memset(address, value, size))

    def _set_attribute(self, function, attribute, value):
        assert (function, attribute) == (4321, 8)
        if value > self.shared_limit:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.log.append(("shared", value))

    def get_default_memory_pool(self):
        def free_all_blocks():
            self.free += self.pool_holds
            self.pool_holds = 0

        return types.SimpleNamespace(free_all_blocks=free_all_blocks)

    def empty(self, shape, dtype):
        if int(np.prod(shape)) * dtype.itemsize > self.free:
            raise OutOfMemoryError("Out of memory allocating")
        return FakeArray(np.empty(shape, dtype))

    def from_dlpack(self, value):
        return value.__dlpack__(stream=0)

    def asarray(self, value):
        return value

    def ascontiguousarray(self, value):
        return FakeArray(np.ascontiguousarray(value.content))


class FakeArray:
    """An array of :class:`FakeCupy`."""

    def __init__(self, content):
        self.content = content
        self.dtype = content.dtype

    @property
    def __cuda_array_interface__(self):
        strides = None if self.content.flags.c_contiguous else self.content.strides
        described = {"shape": self.content.shape, "typestr": self.content.dtype.str, "version": 3, "stream": 1}
        return {**described, "strides": strides, "data": (self.content.ctypes.data, False)}


def add(number, block, x, y, out, n, workspace, status):
    """``out = x + y`` for n floats."""
    first, count = number * block, min(block, n - number * block)
    offset = 4 * first
    total = at(x + offset, np.float32, count) + at(y + offset, np.float32, count)
    at(out + offset, np.float32, count)[:] = total
