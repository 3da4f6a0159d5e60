"""Models with other floats: what computes in float32 as the same in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

Array = np.ndarray[Any, Any]

HALVES: Mapping[str, Any] = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def with_halves(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """``model`` with ``dtype`` of :data:`HALVES` in the place of float32 everywhere."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    code = TensorProto.DataType.Value(dtype.upper())
    graph = changed.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = code
    for tensor in (*graph.initializer, *_tensors(graph)):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(as_half(numpy_helper.to_array(tensor), dtype), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = code
    return changed


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Those in attributes of nodes."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def as_half(array: Array, dtype: str) -> Array:
    """float32 as ``dtype``; anything else as it is."""
    with np.errstate(over="ignore"):
        return array.astype(HALVES[dtype]) if array.dtype == np.float32 else array
