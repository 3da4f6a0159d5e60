"""Arrays that are given to a module for GPUs: numpy's, and those on a GPU of any library.

The latter tell where they are through ``__cuda_array_interface__`` (numba's documentation has it) or DLPack.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from polycomp.errors import InputError
from polycomp.runtime.binding import Array, Shape
from polycomp.runtime.cuda.device import Device

_DLPACK_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged
_KNOWS_STREAM = 3  # the version of the interface that names the stream which the array is made on

# What libraries raise for arrays that they do not share in the way asked for.
_NOT_SHARED = (AttributeError, BufferError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class DeviceArray:
    """An array on a GPU: row-major, at ``address``. ``stream`` is the handle of the one that fills it, if it is known;
    ``owner`` keeps its memory."""

    address: int
    shape: Shape
    dtype: np.dtype[Any]
    stream: int | None
    owner: Any

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def example(self) -> Array:
        """An array of the host with the same shape and element type, of no memory to speak of."""
        return np.broadcast_to(np.empty((), self.dtype), self.shape)


Input = Array | DeviceArray


def given_arrays(device: Device, module: str, named: Iterable[tuple[str, Any]]) -> list[Any]:
    """The values, those on a GPU as :class:`DeviceArray`, others as they are. ``module`` is its name, for errors.

    Raises :class:`InputError` naming all that are on another GPU, or cannot be shared. Called within
    ``device.active()``.
    """
    values: list[Any] = []
    problems: list[str] = []
    for name, value in named:
        try:
            values.append(value if isinstance(value, np.ndarray) else _given(device, value))
        except InputError as problem:
            problems.append(f"{name!r} {problem}")
    if problems:
        raise InputError(f"wrong inputs for {module!r}: {'; '.join(problems)}")
    return values


def _given(device: Device, value: Any) -> Any:
    shared = _shared(device, value)
    if shared is None:
        return value
    array = read_array(device, shared)
    where = device.number_of(array.address) if array.nbytes else device.number
    if where != device.number:
        place = f"on GPU {where}" if where >= 0 else "in memory of no GPU"
        raise InputError(f"is {place}, but the module is loaded on GPU {device.number}, {device.name!r}; copy it there")
    return array


def _shared(device: Device, value: Any) -> Any:
    """An object with ``__cuda_array_interface__`` for the array, or None for what is on no GPU."""
    interface = _interface(value)
    # Older versions of the interface do not say when the array is ready; DLPack sees to it.
    if interface is not None and (interface.get("version", 0) >= _KNOWS_STREAM or not hasattr(value, "__dlpack__")):
        return value
    if not _is_on_gpu(value):
        return None if interface is None else value
    try:
        return device.from_dlpack(value)
    except _NOT_SHARED as error:
        raise InputError(f"is a {type(value).__name__} that cannot be read through DLPack: {error}") from error


def _interface(value: Any) -> Any:
    try:
        return value.__cuda_array_interface__
    except _NOT_SHARED:
        return None


def _is_on_gpu(value: Any) -> bool:
    try:
        return value.__dlpack_device__()[0] in _DLPACK_CUDA
    except _NOT_SHARED:
        return False


def read_array(device: Device, value: Any) -> DeviceArray:
    """What ``__cuda_array_interface__`` says of an array; one that is not row-major is copied on the device."""
    interface = value.__cuda_array_interface__
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    dtype = _dtype(value, interface)
    if strides is not None and not _is_row_major(shape, strides, dtype.itemsize):
        return read_array(device, device.contiguous(value))
    return DeviceArray(interface["data"][0], shape, dtype, interface.get("stream"), value)


def _dtype(value: Any, interface: Any) -> np.dtype[Any]:
    """Element types that numpy itself lacks have no name in the interface."""
    own = getattr(value, "dtype", None)
    return own if isinstance(own, np.dtype) else np.dtype(interface["typestr"])


def _is_row_major(shape: Shape, strides: Iterable[int], item: int) -> bool:
    expected = item
    if 0 in shape:
        return True
    for size, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
