"""TensorProto to numpy, with external data."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from polycomp.dtypes import DType
from polycomp.errors import ExternalDataError, ModelError, UnsupportedOperatorError

Array = np.ndarray[Any, Any]

_P = onnx.TensorProto
DTYPES: Mapping[int, DType] = {
    _P.FLOAT: DType.FLOAT32,
    _P.FLOAT16: DType.FLOAT16,
    _P.BFLOAT16: DType.BFLOAT16,
    _P.DOUBLE: DType.FLOAT64,
    _P.INT8: DType.INT8,
    _P.INT16: DType.INT16,
    _P.INT32: DType.INT32,
    _P.INT64: DType.INT64,
    _P.UINT8: DType.UINT8,
    _P.UINT16: DType.UINT16,
    _P.UINT32: DType.UINT32,
    _P.UINT64: DType.UINT64,
    _P.BOOL: DType.BOOL,
}
_FIELDS = {
    DType.FLOAT32: "float_data",
    DType.FLOAT64: "double_data",
    DType.INT64: "int64_data",
    DType.UINT64: "uint64_data",
    DType.UINT32: "uint64_data",
}


def dtype_name(code: int) -> str:
    """The ONNX name of an element type's number."""
    return str(_P.DataType.Name(code)) if code in _P.DataType.values() else f"number {code}"


def dtype_of(code: int, where: str) -> DType:
    """The DType of an ONNX element type's number; raises UnsupportedOperatorError naming ``where``."""
    if code not in DTYPES:
        supported = ", ".join(dtype_name(c) for c in DTYPES)
        raise UnsupportedOperatorError(
            f"{where} has element type {dtype_name(code)}, which is not supported; supported are {supported}"
        )
    return DTYPES[code]


def to_array(tensor: onnx.TensorProto, folder: pathlib.Path | None, where: str) -> Array:
    """The value of ``tensor`` (row-major, of the tensor's own dtype).

    Raises ModelError when its data do not fit its shape, ExternalDataError when they cannot be had.
    """
    dtype = dtype_of(tensor.data_type, where)
    shape = tuple(tensor.dims)
    if any(not 0 <= d < 2**40 for d in shape):
        raise ModelError(f"{where} has an impossible shape: {list(shape)}")
    count = math.prod(shape)
    if tensor.data_location == _P.EXTERNAL:
        return _from_bytes(_external(tensor, count * dtype.bytes, folder, where), dtype, shape, where)
    if tensor.HasField("raw_data"):
        return _from_bytes(tensor.raw_data, dtype, shape, where)
    values = getattr(tensor, _FIELDS.get(dtype, "int32_data"))
    if len(values) != count:
        raise ModelError(f"{where} has shape {list(shape)}, so {count} elements, but holds {len(values)}")
    return _from_field(values, dtype).reshape(shape)


def _from_bytes(data: bytes, dtype: DType, shape: tuple[int, ...], where: str) -> Array:
    wanted = math.prod(shape) * dtype.bytes
    if len(data) != wanted:
        raise ModelError(f"{where} of shape {list(shape)} needs {wanted} bytes of data, but holds {len(data)}")
    if dtype is DType.BFLOAT16:
        return np.frombuffer(data, np.dtype("<u2")).astype(np.uint16, copy=False).view(dtype.numpy).reshape(shape)
    return np.frombuffer(data, dtype.numpy.newbyteorder("<")).astype(dtype.numpy, copy=False).reshape(shape)


def _from_field(values: Any, dtype: DType) -> Array:
    if dtype.is_half:  # kept as the bit patterns of the halves
        return np.array(values, np.int64).astype(np.uint16).view(dtype.numpy)
    if dtype.is_float:
        return np.array(values, dtype.numpy)
    wide = np.uint64 if dtype in (DType.UINT64, DType.UINT32) else np.int64
    return np.array(values, wide).astype(dtype.numpy)


def _external(tensor: onnx.TensorProto, size: int, folder: pathlib.Path | None, where: str) -> bytes:
    entries = {e.key: e.value for e in tensor.external_data}
    path = _external_path(entries.get("location", ""), folder, where)
    offset = _number(entries, "offset", 0, where)
    length = _number(entries, "length", size, where)
    if length != size:
        raise ExternalDataError(f"{where} needs {size} bytes of external data, but its entry says {length}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise ExternalDataError(f"{where} is kept in {str(path)!r}, which cannot be read: {error.strerror}") from None
    if len(data) < size:
        raise ExternalDataError(
            f"{where} needs {size} bytes at offset {offset} of {str(path)!r}, but the file has only {len(data)} there"
        )
    return data


def _external_path(location: str, folder: pathlib.Path | None, where: str) -> pathlib.Path:
    if folder is None:
        raise ExternalDataError(
            f"{where} is kept in another file, {location!r}; give the model as a path so that it can be found"
        )
    if not location or "\0" in location:
        raise ExternalDataError(f"{where} is kept in another file, but its location {location!r} is not a file name")
    root = folder.resolve()
    path = (root / location).resolve()
    if not path.is_relative_to(root):
        raise ExternalDataError(f"{where} is kept in {location!r}, which lies outside of the model's folder")
    return path


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) >= 2**62:
        raise ExternalDataError(f"{where} has an external data {key} of {text!r}, which is not a size in bytes")
    return int(text)
