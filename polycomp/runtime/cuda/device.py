"""What running a module needs of a GPU. ``cupydevice.py`` has it from cupy; tests put memory of the host in its place.

Addresses are numbers of bytes in the device's memory. Every call of a method, except those of :class:`Device` that say
otherwise, is made within :meth:`Device.active` of the device it belongs to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from polycomp.runtime.binding import Shape
from polycomp.runtime.memory import Bytes


@dataclasses.dataclass(frozen=True)
class MemoryInfo:
    """Of a device, in bytes."""

    free: int
    total: int


class Buffer(Protocol):
    """Memory of a device, freed when nothing refers to it any more. ``address`` is a multiple of 256."""

    @property
    def address(self) -> int: ...


class Code(Protocol):
    """Loaded code, kept for as long as this or a function of it lives."""

    def function(self, name: str, shared_bytes: int) -> Any:
        """The kernel ``name``, to be launched with ``shared_bytes`` of dynamic shared memory or less.

        Raises :class:`ModuleFileError` when the code has no such kernel, or the device not so much shared memory.
        """


class Graph(Protocol):
    """Work that was captured."""

    def launch(self) -> None:
        """Enqueue all of it on the stream that it was captured from."""


class Stream(Protocol):
    """A queue of work, done in order. Only one thread at a time uses it."""

    def upload(self, address: int, source: Bytes) -> None:
        """Enqueue a copy of contiguous host memory to the device; ``source`` is not changed until it is done."""

    def download(self, target: Bytes, address: int) -> None:
        """Enqueue a copy from the device that fills contiguous host memory."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy of ``size`` bytes within the device."""

    def clear(self, address: int, size: int) -> None:
        """Enqueue setting ``size`` bytes to 0."""

    def launch(self, function: Any, grid: int, block: int, shared_bytes: int, arguments: Sequence[int]) -> None:
        """Enqueue ``grid`` blocks of ``block`` threads of a :meth:`Code.function`.

        Each argument is one word of 64 bits: an address, or an integer.
        """

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Call ``enqueue``, which makes launches, copies and clears on this stream, and keep what it enqueues instead
        of doing it."""

    def wait_for(self, other: int | None) -> None:
        """Let all work enqueued from now on wait for what has been enqueued on another stream, given by its handle as
        in ``__cuda_array_interface__``; None: the caller's current stream."""

    def record(self) -> Any:
        """Enqueue an event that notes the time, and return it."""

    def hold(self) -> Callable[[], None]:
        """Let what is enqueued from now on not begin until the returned function is called, or a moment has passed, so
        that a device is not kept waiting between two pieces of work that are enqueued one after the other."""

    def synchronize(self) -> None:
        """Wait until all is done. Raises :class:`ExecutionError` when something failed."""


class Device(Protocol):
    """A GPU. ``architecture`` is as in ``"sm_90"``, ``name`` the vendor's; ``number`` tells the GPUs of a machine
    apart. May be used from several threads."""

    @property
    def architecture(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int: ...

    def active(self) -> AbstractContextManager[Any]:
        """Makes it the device of this thread."""

    def memory(self) -> MemoryInfo: ...

    def allocate(self, size: int) -> Buffer:
        """Uninitialised memory. Raises :class:`OutOfMemoryError` when there is not so much."""

    def host_memory(self, size: int) -> Bytes:
        """Uninitialised memory of the host that copies to and from the device go through."""

    def load_code(self, image: bytes) -> Code:
        """Load a cubin or PTX. Raises :class:`ModuleFileError` when the driver does not accept it."""

    def new_stream(self) -> Stream: ...

    def new_array(self, shape: Shape, dtype: np.dtype[Any]) -> Any:
        """An uninitialised row-major array on the device, with ``__cuda_array_interface__``, for a caller to keep.

        Work of the caller's current stream may still use its memory: wait for it before writing. Raises
        :class:`OutOfMemoryError`.
        """

    def from_dlpack(self, value: Any) -> Any:
        """An array with ``__cuda_array_interface__`` that shares the memory of one with ``__dlpack__``, ready for use
        on the caller's current stream. Raises BufferError or another error of the array's own library."""

    def contiguous(self, value: Any) -> Any:
        """A row-major copy of a strided array with ``__cuda_array_interface__``, made on the caller's current
        stream."""

    def number_of(self, address: int) -> int:
        """The number of the device whose memory is at ``address``; -1 for what is no memory of a device."""

    def nanoseconds(self, start: Any, end: Any) -> int:
        """The time between two events of :meth:`Stream.record`, which have happened."""
