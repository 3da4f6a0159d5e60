"""Run one canonical operator through its definition, and the same ONNX node through onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from polycomp.graph.ir import Call, TensorType
from polycomp.ops import operators
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate

Array = np.ndarray[Any, Any]


def random(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    """Normal deviates; for integer dtypes, small ones rounded."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return values.astype(dtype) if dtype.startswith("float") else (3 * values).astype(dtype)


def make_call(op: str, types: list[TensorType | None], **attributes: Any) -> Call:
    return Call("node", op, tuple(types), attributes)


def array_call(op: str, arrays: list[Array | None], **attributes: Any) -> tuple[Call, list[Any]]:
    tensors = [None if a is None else placeholder(a.shape, a.dtype.name, f"x{i}") for i, a in enumerate(arrays)]
    types = [None if t is None else TensorType(t.dtype, t.shape) for t in tensors]
    return make_call(op, types, **attributes), tensors


def ours(op: str, *arrays: Array | None, **attributes: Any) -> Array:
    """The operator's only output; its type must be what the shape rule says."""
    call, tensors = array_call(op, list(arrays), **attributes)
    operator = operators()[op]
    outputs = operator.lower(call, tensors)
    assert [(t.dtype, t.shape) for t in operator.infer(call)] == [(t.dtype, t.shape) for t in outputs]
    feeds = {t: a for t, a in zip(tensors, arrays, strict=True) if t is not None and a is not None}
    (result,) = evaluate(outputs, feeds)
    assert result.dtype == outputs[0].dtype.numpy
    return result


def onnxruntime_result(op: str, *arrays: Array | None, constants: tuple[Array, ...] = (), **attributes: Any) -> Array:
    """onnxruntime's output for one node whose inputs are ``arrays`` then ``constants``."""
    onnxruntime = pytest.importorskip("onnxruntime")
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    fixed = ["" if c.size == 0 else f"c{i}" for i, c in enumerate(constants)]
    feeds = {n: a for n, a in zip(names, arrays, strict=True) if n and a is not None}
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    graph = helper.make_graph(
        [helper.make_node(op, names + fixed, ["y"], **attributes)],
        "oracle",
        [helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in feeds.items()],
        [helper.make_tensor_value_info("y", kinds["x0"], None)],
        [onnx.numpy_helper.from_array(c, n) for c, n in zip(constants, fixed, strict=True) if n],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, feeds)
    return np.asarray(result)


def assert_close(a: Array, b: Array, tolerance: float = 1e-5) -> None:
    """Equal shapes, and a largest difference below ``tolerance`` times the largest magnitude."""
    assert a.shape == b.shape
    assert a.size == 0 or np.max(np.abs(a - b)) <= tolerance * max(1.0, float(np.max(np.abs(b))))
