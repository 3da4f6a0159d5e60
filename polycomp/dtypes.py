"""Element types of tensors and scalar expressions."""

from __future__ import annotations

import enum
import functools
import importlib

import numpy as np

from polycomp.errors import DTypeError


class DType(enum.Enum):
    """An element type. The value is its numpy name (that of ``BFLOAT16`` is known to the package ml_dtypes); ``BOOL``
    is stored as one byte, 0 or 1."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    BOOL = "bool"

    @property
    def bytes(self) -> int:
        """Size of one element in memory, in bytes."""
        return _BYTES[self]

    @property
    def bits(self) -> int:
        """Size of one element in memory, in bits."""
        return 8 * _BYTES[self]

    @property
    def is_float(self) -> bool:
        return "float" in self.value

    @property
    def is_half(self) -> bool:
        """Whether it is a float of 16 bits, which is stored as such and computed in float32."""
        return self.is_float and self.bytes == 2

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @property
    def is_signed(self) -> bool:
        """Whether values may be negative (all floats, and int8..int64)."""
        return self.is_float or self.value.startswith("int")

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return _numpy_bfloat16() if self is DType.BFLOAT16 else np.dtype(self.value)

    @property
    def minimum(self) -> int | float:
        """The smallest value; minus infinity for floats."""
        if self.is_float:
            return float("-inf")
        return 0 if self is DType.BOOL else int(np.iinfo(self.value).min)

    @property
    def maximum(self) -> int | float:
        """The largest value; infinity for floats."""
        if self.is_float:
            return float("inf")
        return 1 if self is DType.BOOL else int(np.iinfo(self.value).max)

    def __repr__(self) -> str:
        return self.value


_BYTES = {d: 2 if d is DType.BFLOAT16 else np.dtype(d.value).itemsize for d in DType}


@functools.cache
def _numpy_bfloat16() -> np.dtype[np.generic]:
    """numpy's own types lack it, and what does not need it shall not wait for the package that has it."""
    try:
        scalar = importlib.import_module("ml_dtypes").bfloat16
    except ImportError:
        raise DTypeError("arrays of bfloat16 need the package ml_dtypes, which is not installed; install it") from None
    found: np.dtype[np.generic] = np.dtype(scalar)
    return found


DTypeLike = DType | str


def as_dtype(value: DTypeLike | np.dtype[np.generic]) -> DType:
    """Return the :class:`DType` of a name, numpy dtype or DType.

    Raises :class:`DTypeError` for an element type that polycomp does not have.
    """
    if isinstance(value, DType):
        return value
    name = value if isinstance(value, str) else value.name if isinstance(value, np.dtype) else str(value)
    try:
        return DType(name)
    except ValueError:
        known = ", ".join(d.value for d in DType)
        raise DTypeError(f"element type {name!r} is not supported; use one of {known}") from None
