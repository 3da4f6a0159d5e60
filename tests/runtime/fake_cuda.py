"""A GPU whose memory is numpy's and whose kernels are Python functions, and small modules for it.

It is stricter than a real one: work is done no earlier than somebody waits for it, memory that was freed or never
allocated cannot be touched, and a launch must be what a GPU takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import weakref

import numpy as np

from polycomp.errors import ExecutionError, ModuleFileError, OutOfMemoryError
from polycomp.runtime import Manifest, ModuleParts, StepSpec, SymbolSpec, TensorSpec
from polycomp.runtime.cuda.device import MemoryInfo
from polycomp.runtime.cuda.module import CudaModule
from polycomp.runtime.cuda.plan import CodeSpec, DevicePlan, DeviceStep, LaunchSpec, OperandSpec
from polycomp.runtime.image import assemble

CALLERS_STREAM = 77
THREADS = 32


class FakeBuffer:
    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.content = np.full(size, 0xCD, np.uint8)


class FakeArray:
    """An array on the device, as another library would have it."""

    def __init__(self, device, buffer, shape, dtype, offset=0, strides=None, stream=CALLERS_STREAM, version=3):
        self.device, self.buffer, self.offset = device, buffer, offset
        self.shape, self.strides, self.kind = shape, strides, np.dtype(dtype)
        self.stream, self.version = stream, version

    @property
    def __cuda_array_interface__(self):
        size = int(np.prod(self.shape)) * self.kind.itemsize
        interface = {
            "shape": self.shape,
            "typestr": self.kind.str,
            "data": (self.buffer.address + self.offset if size else 0, False),
            "strides": self.strides,
            "version": self.version,
        }
        return interface | ({"stream": self.stream} if self.version >= 3 else {})

    def numpy(self):
        memory = self.buffer.content[self.offset :]
        return np.ndarray(self.shape, self.kind, memory, 0, self.strides).copy()


class DlpackArray:
    """An array that is only to be had through DLPack. ``kind`` 1 is the host's memory, 2 a GPU's."""

    def __init__(self, array, kind=2, fails=False):
        self.array, self.kind, self.fails = array, kind, fails

    def __dlpack_device__(self):
        return self.kind, 0

    def __dlpack__(self, **_):
        if self.fails:
            raise BufferError("it is being written")
        return self.array


class FakeDevice:
    """See ``polycomp.runtime.cuda.device.Device``. ``kernels`` are by name; what is given to their memory is the
    device. ``log`` has what streams were asked to do."""

    def __init__(self, kernels=None, architecture="sm_80", total=1 << 20, number=0):
        self.architecture, self.number, self.total = architecture, number, total
        self.name = "Fake GPU"
        self.kernels = KERNELS if kernels is None else kernels
        self.buffers = weakref.WeakValueDictionary()
        self.next_address = (number + 1) << 40
        self.log = []
        self.loaded = []
        self.depth = 0

    def active(self):
        @contextlib.contextmanager
        def entered():
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1

        return entered()

    def memory(self):
        self._check_active()
        return MemoryInfo(self.total - sum(b.content.nbytes for b in self.buffers.values()), self.total)

    def allocate(self, size):
        if size > self.memory().free:
            raise OutOfMemoryError("too much")
        buffer = FakeBuffer(self.next_address, size)
        self.next_address += (size // 4096 + 2) * 4096
        self.buffers[buffer.address] = buffer
        self.log.append(("allocate", size))
        return buffer

    def host_memory(self, size):
        self._check_active()
        return np.full(size, 0xEE, np.uint8)

    def load_code(self, image):
        self._check_active()
        self.loaded.append(image)
        return FakeCode(self, image)

    def new_stream(self):
        self._check_active()
        return FakeStream(self)

    def new_array(self, shape, dtype):
        size = int(np.prod(shape)) * dtype.itemsize
        return FakeArray(self, self.allocate(size), shape, dtype)

    def array(self, content, **options):
        """An array with the content of one of numpy's."""
        content = np.asarray(content)
        with self.active():
            array = FakeArray(self, self.allocate(content.nbytes), content.shape, content.dtype, **options)
        array.buffer.content[:] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        return array

    def from_dlpack(self, value):
        self._check_active()
        return value.__dlpack__(stream=CALLERS_STREAM)

    def contiguous(self, value):
        self._check_active()
        self.log.append(("contiguous",))
        return self.array(value.numpy())

    def number_of(self, address):
        return (address >> 40) - 1 if address >> 40 in (1, 2) else -1

    def nanoseconds(self, start, end):
        return end.time - start.time

    def view(self, address, size):
        """The memory of ``size`` bytes at an address."""
        for start, buffer in self.buffers.items():
            if start <= address and address + size <= start + buffer.content.nbytes:
                return buffer.content[address - start : address - start + size]
        raise ExecutionError(f"the GPU {self.name!r} failed: no memory of {size} bytes at {address:#x}")

    def floats(self, address, count):
        return self.view(address, 4 * count).view(np.float32)

    def words(self, address, count):
        return self.view(address, 8 * count).view(np.int64)

    def _check_active(self):
        assert self.depth, "the device is not the current one"

    def count(self, what):
        """How often streams were asked for something."""
        return sum(entry[0] == what for entry in self.log)


class FakeCode:
    def __init__(self, device, image):
        self.device, self.image = device, image

    def function(self, name, shared_bytes):
        if name not in self.device.kernels:
            raise ModuleFileError(f"the module's kernel {name!r} cannot be used on this GPU: not found")
        return name, self.device.kernels[name], shared_bytes


@dataclasses.dataclass
class FakeEvent:
    time: int = -1


class FakeStream:
    """Work waits in ``queue`` until :meth:`synchronize`."""

    def __init__(self, device):
        self.device = device
        self.queue = []
        self.captured = None
        self.clock = itertools.count(1000, 1000)
        self.is_held = False

    def _enqueue(self, entry, action):
        self.device._check_active()
        if self.captured is not None:
            self.captured.append(action)
        else:
            self.device.log.append(entry)
            self.queue.append(action)

    def upload(self, address, source):
        assert source.flags.c_contiguous and source.dtype == np.uint8
        self._enqueue(("upload", address, source.nbytes), lambda: self._write(address, source))

    def _write(self, address, source):
        self.device.view(address, source.nbytes)[:] = source

    def download(self, target, address):
        assert target.flags.c_contiguous and target.flags.writeable and target.dtype == np.uint8
        self._enqueue(
            ("download", address, target.nbytes), lambda: np.copyto(target, self.device.view(address, target.nbytes))
        )

    def copy(self, target, source, size):
        assert size > 0
        self._enqueue(
            ("copy", target, source, size),
            lambda: np.copyto(self.device.view(target, size), self.device.view(source, size)),
        )

    def clear(self, address, size):
        assert size > 0
        self._enqueue(("clear", address, size), lambda: self.device.view(address, size).fill(0))

    def launch(self, function, grid, block, shared_bytes, arguments):
        name, kernel, allowed = function
        assert 0 < grid < 1 << 31 and 0 < block <= 1024 and shared_bytes <= allowed
        words = [int(a) for a in arguments]
        self._enqueue(
            ("launch", name, grid, block, *words),
            lambda: [kernel(self.device, number, block, *words) for number in range(grid)],
        )

    def capture(self, enqueue):
        assert self.captured is None
        self.device.log.append(("capture",))
        self.captured = []
        try:
            enqueue()
            return FakeGraph(self, self.captured)
        finally:
            self.captured = None

    def wait_for(self, other):
        self._enqueue(("wait", other), lambda: None)

    def record(self):
        event = FakeEvent()
        self._enqueue(("record",), lambda: setattr(event, "time", next(self.clock)))
        return event

    def hold(self):
        self.is_held = True
        return lambda: setattr(self, "is_held", False)

    def synchronize(self):
        assert not self.is_held
        self.device._check_active()
        queue, self.queue = self.queue, []
        for action in queue:
            action()


class FakeGraph:
    def __init__(self, stream, actions):
        self.stream, self.actions = stream, actions

    def launch(self):
        self.stream._enqueue(("graph",), lambda: [action() for action in self.actions])


# Kernels


def add(device, number, block, x, y, out, n, workspace, status):
    """``out = x + y`` for n floats, ``block`` of them per block. Its workspace is as large as out."""
    first = number * block
    count = min(block, n - first)
    scratch = device.floats(workspace + 4 * first, count)
    scratch[:] = device.floats(x + 4 * first, count) + device.floats(y + 4 * first, count)
    device.floats(out + 4 * first, count)[:] = scratch


def take(device, number, block, table, at, out, workspace, status):
    """``out = table[at]`` of four floats."""
    index = int(device.words(at, 1)[0])
    if not 0 <= index < 4:
        words = device.words(status, 3)
        if words[0] == 0:
            words[:] = 1, index, 4
        index = 0
    device.floats(out, 1)[:] = device.floats(table, 4)[index]


KERNELS = {"add_0": add, "take_0": take}


# Modules


def code_for(symbols, archs=("sm_80", "ptx")):
    """Specs and bytes of code: the symbol and the architecture as text, or PTX that says what it is for."""
    specs, pieces = [], []
    for symbol in symbols:
        for arch in archs:
            name, _, target = arch.partition(" ")
            text = f"// {symbol}\n.version 8.0\n.target {target or 'sm_80'}\n" if name == "ptx" else f"{symbol} {arch}"
            specs.append(CodeSpec(symbol, name, sum(map(len, pieces)), len(text)))
            pieces.append(text.encode())
    return tuple(specs), b"".join(pieces)


def blocks(size):
    return ["floordiv", ["add", size, THREADS - 1], THREADS]


def add_step(*operands, size="N"):
    launch = LaunchSpec("add_0", blocks(size), THREADS, 0)
    return DeviceStep("add", tuple(OperandSpec(*o) for o in operands), (size,), ["mul", size, 4], (launch,))


def tiny_parts(archs=("sm_80", "ptx"), maximum=1000) -> ModuleParts:
    """``out = (x + y) + [0, 1, 2, ...]`` for vectors of N floats."""
    specs, code = code_for(["add"], archs)
    steps = (
        add_step(("input", 0, 0), ("input", 1, 0), ("arena", 0, 64)),
        add_step(("arena", 0, 64), ("weight", 0, 64), ("output", 0, 0)),
    )
    vector = ("float32", ("N",))
    manifest = Manifest(
        name="tiny",
        arch="cuda",
        features=("sm_80",),
        threads=0,
        inputs=(TensorSpec("x", *vector), TensorSpec("y", *vector)),
        outputs=(TensorSpec("out", *vector),),
        symbols=(SymbolSpec("N", 0, maximum),),
        conditions=(),
        steps=(StepSpec("add", ("first", "again"), "N", ["mul", "N", 12]), StepSpec("add", (), "N", ["mul", "N", 12])),
        arena_bytes=["add", 64, ["mul", "N", 4]],
        weight_bytes=64 + 4 * 1000,
        device=DevicePlan(specs, steps),
    )
    return ModuleParts(manifest, code, [(64, np.arange(1000, dtype=np.float32))])


def taking_parts() -> ModuleParts:
    """``first = table[i]`` and ``second = table[j]`` of four floats; then ``both = first + second``."""
    specs, code = code_for(["take", "add"])
    launch = (LaunchSpec("take_0", 1, 1, 0),)

    def take_step(at, out):
        operands = (OperandSpec("input", 0, 0), OperandSpec("input", at, 0), OperandSpec("output", out, 0))
        return DeviceStep("take", operands, (), 0, launch)

    steps = (
        take_step(1, 0),
        add_step(("output", 0, 0), ("output", 0, 0), ("arena", 0, 0), size=1),
        take_step(2, 1),
    )
    manifest = Manifest(
        name="taking",
        arch="cuda",
        features=("sm_80",),
        threads=0,
        inputs=(TensorSpec("table", "float32", (4,)), TensorSpec("i", "int64", ()), TensorSpec("j", "int64", ())),
        outputs=(TensorSpec("first", "float32", ()), TensorSpec("second", "float32", ())),
        symbols=(),
        conditions=(),
        steps=(
            StepSpec("take", ("gather_1",), 0, 4, ("table",)),
            StepSpec("add", ("sum",), 0, 4),
            StepSpec("take", ("gather_2",), 0, 4, ("table",)),
        ),
        arena_bytes=4,
        weight_bytes=0,
        device=DevicePlan(specs, steps),
    )
    return ModuleParts(manifest, code, [])


def with_plan(parts: ModuleParts, **changes) -> ModuleParts:
    """The parts with another plan."""
    plan = dataclasses.replace(parts.manifest.device, **changes)
    return dataclasses.replace(parts, manifest=dataclasses.replace(parts.manifest, device=plan))


def cuda_module(parts: ModuleParts, device: FakeDevice | None = None) -> CudaModule:
    """Load what a test has made."""
    return CudaModule(assemble(parts), device or FakeDevice())
