"""Arrays on a GPU as arguments: their dtypes and shapes, without a look at their elements and without cupy.

Those of cupy, torch, jax and numba tell about themselves through ``__cuda_array_interface__`` (numba's documentation
has it) or DLPack.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.errors import ArgumentError, DTypeError

_DLPACK_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged

# What libraries raise for arrays that they do not share in the way asked for.
_NOT_SHARED = (AttributeError, BufferError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class GpuArray:
    """What is known of an array on a GPU; ``value`` is the caller's own."""

    value: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def gpu_array(name: str, value: Any) -> GpuArray | None:
    """The argument ``name``, if it is an array on a GPU; None for anything else.

    Raises :class:`ArgumentError` for a dtype that polycomp does not have.
    """
    interface = _interface(value)
    if interface is not None:
        return GpuArray(value, _dtype(name, value, interface["typestr"]), tuple(interface["shape"]))
    if _is_on_gpu(value):
        return GpuArray(value, _dtype(name, value), tuple(value.shape))
    return None


def _interface(value: Any) -> Any:
    try:
        return value.__cuda_array_interface__
    except _NOT_SHARED:  # torch has the attribute for all tensors, and says so for those of the CPU
        return None


def _is_on_gpu(value: Any) -> bool:
    try:
        return value.__dlpack_device__()[0] in _DLPACK_CUDA
    except _NOT_SHARED:
        return False


def _dtype(name: str, value: Any, interface: str = "") -> np.dtype[Any]:
    """numpy's own where the array has one; else by its text in the interface, which knows no bfloat16, or its name in
    another library (``torch.bfloat16``)."""
    own = getattr(value, "dtype", None)
    if not isinstance(own, np.dtype):
        own = np.dtype(interface) if interface and "V" not in interface else str(own).rpartition(".")[2]
    try:
        return as_dtype(own).numpy
    except DTypeError as error:
        raise ArgumentError(f"argument {name!r}: {error}") from None
