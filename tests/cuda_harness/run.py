"""Running kernels on the CPU."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import functools
import os
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cuda_harness.build import Variant, build_kernels, runtime_library, sanitized_program
from cuda_harness.memory import GuardedMemory, guarded_copy

Argument = np.ndarray[Any, Any] | int
Extent = int | tuple[int, ...]


class LaunchError(Exception):
    """A launch did what a GPU does not allow: a divergent barrier, a race, an access outside of its memory."""


class Order(enum.IntFlag):
    """In which order threads run between two barriers, and blocks: forward, unless told otherwise."""

    FORWARD = 0
    THREADS_BACKWARD = 1
    BLOCKS_BACKWARD = 2
    BACKWARD = 3


class Kernels(Protocol):
    """Compiled ``functions``."""

    functions: tuple[str, ...]

    def launch(
        self,
        function: str,
        grid: Extent,
        block: Extent,
        shared_bytes: int,
        arguments: Sequence[Argument],
        order: Order = Order.FORWARD,
    ) -> None:
        """Run ``grid`` blocks of ``block`` threads, with ``shared_bytes`` of dynamic shared memory.

        An argument is a row-major array, which the kernel gets a pointer to and may change, or an integer. Raises
        :class:`LaunchError` when the kernel does something wrong, and TypeError or ValueError for arguments that do
        not fit its parameters.
        """


def compile_for_cpu(
    source: str | Sequence[str],
    functions: Sequence[str],
    sanitize: bool = False,
    *,
    races: bool = False,
    folder: Path | None = None,
) -> CpuKernels | SanitizedKernels:
    """Compile ``functions``, which are ``extern "C" __global__``, of CUDA C without the prelude.

    Several sources are compiled together; they share no names but those of ``functions``, which must differ. With
    ``sanitize``, launches run in processes of their own with AddressSanitizer and UndefinedBehaviorSanitizer; with
    ``races``, threads that touch the same memory with no barrier in between are found. What is built is kept in
    ``folder``, by default one among the user's temporary files. Raises :class:`HarnessError` for what g++ rejects.
    """
    assert not (sanitize and races), "one at a time"
    sources = [source] if isinstance(source, str) else source
    path = build_kernels(sources, functions, Variant(sanitize, races), folder)
    if sanitize:
        return SanitizedKernels(path, tuple(functions), sanitized_program(folder))
    return CpuKernels(path, tuple(functions), _runtime(runtime_library(folder)))


_SHARED_ALIGNMENT = 1024
"""Of dynamic shared memory: what kernels may ask for."""


class _Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


class _Kernel(ctypes.Structure):
    """``harness::Kernel``, in launch.hpp."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(ctypes.c_int)),
        ("parameter_count", ctypes.c_int),
    ]


class _Launch(ctypes.Structure):
    """``harness::Launch``, in launch.hpp."""

    _fields_ = [
        ("kernel", ctypes.POINTER(_Kernel)),
        ("arguments", ctypes.c_void_p),
        ("grid", _Dim3),
        ("block", _Dim3),
        ("dynamic_shared", ctypes.c_void_p),
        ("dynamic_bytes", ctypes.c_longlong),
        ("order", ctypes.c_int),
        ("message", ctypes.c_char_p),
        ("message_bytes", ctypes.c_int),
        ("address", ctypes.c_void_p),
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Runtime:
    """The loaded runtime, which runs one launch at a time."""

    library: ctypes.CDLL
    lock: threading.Lock


@functools.cache
def _runtime(path: Path) -> _Runtime:
    return _Runtime(ctypes.CDLL(str(path)), threading.Lock())


@dataclasses.dataclass(frozen=True)
class Region:
    """Memory with a name, for messages."""

    name: str
    address: int
    size: int


class CpuKernels:
    """See :class:`Kernels`. Launches run in this process; arrays are copied to memory between guarded pages."""

    def __init__(self, path: Path, functions: tuple[str, ...], runtime: _Runtime) -> None:
        """Use :func:`compile_for_cpu` instead."""
        self.functions = functions
        self._runtime = runtime
        self._library = ctypes.CDLL(str(path))
        self._kernels = {f: _Kernel.in_dll(self._library, f"harness_kernel_{f}") for f in functions}

    def launch(
        self,
        function: str,
        grid: Extent,
        block: Extent,
        shared_bytes: int,
        arguments: Sequence[Argument],
        order: Order = Order.FORWARD,
    ) -> None:
        """See :meth:`Kernels.launch`."""
        kernel = self._kernels[function]
        _check_arguments(function, kernel.parameters[: kernel.parameter_count], arguments)
        copies = {i: guarded_copy(a) for i, a in enumerate(arguments) if isinstance(a, np.ndarray)}
        words = [copies[i].address if i in copies else int(a) for i, a in enumerate(arguments)]
        regions = [Region(f"argument {i}", memory.address, memory.size) for i, memory in copies.items()]
        self.launch_words(function, grid, block, shared_bytes, words, order, regions)
        for i, memory in copies.items():
            _write_back(arguments[i], memory.bytes)

    def launch_words(
        self,
        function: str,
        grid: Extent,
        block: Extent,
        shared_bytes: int,
        words: Sequence[int],
        order: Order,
        regions: Iterable[Region],
    ) -> None:
        """Like :meth:`launch`, with addresses and integers for arguments. ``regions`` are memory that messages name."""
        kernel = self._kernels[function]
        shared = GuardedMemory(shared_bytes, _SHARED_ALIGNMENT)
        values = (ctypes.c_longlong * max(len(words), 1))(*words)
        pointers = (ctypes.c_void_p * max(len(words), 1))(
            *(ctypes.addressof(values) + 8 * i for i in range(len(words)))
        )
        message = ctypes.create_string_buffer(1000)
        launch = _Launch(
            kernel=ctypes.pointer(kernel),
            arguments=ctypes.addressof(pointers),
            grid=_Dim3(*_three(grid)),
            block=_Dim3(*_three(block)),
            dynamic_shared=shared.address,
            dynamic_bytes=shared.size,
            order=int(order),
            message=ctypes.cast(message, ctypes.c_char_p),
            message_bytes=len(message),
        )
        with self._runtime.lock:
            worked = self._runtime.library.harness_launch(ctypes.byref(launch))
        if not worked:
            known = [*regions, Region("dynamic shared memory", shared.address, shared.size), *_static_shared(kernel)]
            raise LaunchError(message.value.decode() + _place(launch.address, known))


class SanitizedKernels:
    """See :class:`Kernels`. Each launch is a process, in which each array is a piece of the heap."""

    def __init__(self, path: Path, functions: tuple[str, ...], program: Path) -> None:
        """Use :func:`compile_for_cpu` instead."""
        self.functions = functions
        self._path = path
        self._program = program

    def launch(
        self,
        function: str,
        grid: Extent,
        block: Extent,
        shared_bytes: int,
        arguments: Sequence[Argument],
        order: Order = Order.FORWARD,
    ) -> None:
        """See :meth:`Kernels.launch`. The types of arguments are not checked."""
        numbers = [*_three(grid), *_three(block), shared_bytes, int(order)]
        done = subprocess.run(
            [self._program, self._path, function, *map(str, numbers)],
            input=b"".join(map(_packed, arguments)),
            capture_output=True,
            check=False,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
        )
        if done.returncode:
            told = done.stderr.decode(errors="replace").partition("Shadow bytes around")[0]
            raise LaunchError(told.strip() or f"exit status {done.returncode}")
        left = done.stdout
        for array in [a for a in arguments if isinstance(a, np.ndarray)]:
            _write_back(array, np.frombuffer(left[: array.nbytes], np.uint8))
            left = left[array.nbytes :]


def _three(extent: Extent) -> tuple[int, int, int]:
    x, y, z = (*((extent,) if isinstance(extent, int) else extent), 1, 1)[:3]
    return x, y, z


def _packed(argument: Argument) -> bytes:
    if isinstance(argument, np.ndarray):
        return struct.pack("<q", argument.nbytes) + argument.tobytes()
    return struct.pack("<qq", -1, argument)


def _write_back(array: Any, content: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    if array.flags.writeable:
        array[...] = content.view(array.dtype).reshape(array.shape)


def _check_arguments(function: str, parameters: Sequence[int], arguments: Sequence[Argument]) -> None:
    if len(parameters) != len(arguments):
        raise TypeError(f"{function} has {len(parameters)} parameters; there are {len(arguments)} arguments")
    for i, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True)):
        problem = _problem(parameter, argument)
        if problem:
            raise TypeError(f"{function}: argument {i} {problem}")


def _problem(parameter: int, argument: Argument) -> str:
    """``parameter`` is as in ``harness::Kernel``."""
    if not isinstance(argument, np.ndarray):
        return "is a number where a pointer is needed" if parameter > 0 else ""
    if parameter < 0:
        return "is an array where a number is needed"
    if not argument.flags.c_contiguous:
        return "is not row-major"
    if parameter not in (1, argument.itemsize):  # a workspace, of bytes, may be of any type
        return f"is an array of {argument.dtype}; the kernel's elements have {parameter} bytes"
    return ""


def _static_shared(kernel: Any) -> Iterator[Region]:
    if kernel.shared:
        yield Region("static shared memory", kernel.shared, kernel.shared_end - kernel.shared)


def _place(address: int | None, regions: Iterable[Region]) -> str:
    """Where an address is, as an addition to a message."""
    if address is None:
        return ""
    nearest = min(regions, key=lambda r: _distance(address, r), default=None)
    if nearest is None or _distance(address, nearest) > 1 << 20:
        return f" (address {address:#x}, near no buffer)"
    if address < nearest.address:
        return f" ({nearest.address - address} bytes before {nearest.name})"
    offset = address - nearest.address
    if offset >= nearest.size:
        return f" ({offset - nearest.size} bytes after the end of {nearest.name})"
    return f" (byte {offset} of {nearest.name})"


def _distance(address: int, region: Region) -> int:
    return max(region.address - address, address - (region.address + region.size) + 1, 0)
