"""Single operators as ONNX models, with the same in torch: what ``cuda_speed.py`` measures besides whole models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from measure import Array
from onnx import helper, numpy_helper

from polycomp.dtypes import as_dtype

Model = onnx.ModelProto

_PATTERN = 1 << 22
"""Elements. Random numbers repeat after so many, because making them takes longer than what is measured."""


def _random(shape: Sequence[int], seed: int) -> Array:
    values = np.random.default_rng(seed).standard_normal(min(_PATTERN, math.prod(shape)), np.float32)
    return np.resize(values, tuple(shape))


def _model(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, Array], weights: Mapping[str, Array], shape: Sequence[int]
) -> Model:
    """A model from inputs like ``feeds`` to the output ``y`` of their type and of that shape."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in feeds.items()]
    output = helper.make_tensor_value_info("y", next(iter(kinds.values())), shape)
    constants = [numpy_helper.from_array(a, name) for name, a in weights.items()]
    graph = helper.make_graph(list(nodes), "operator", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# Products


def product_operands(size: int, dtype: str) -> tuple[Array, Array]:
    """Two square matrices; of ``tf32`` they are float32."""
    kind = as_dtype("float32" if dtype == "tf32" else dtype).numpy
    return _random((size, size), 0).astype(kind), _random((size, size), 1).astype(kind)


def matmul_model(a: Array, b: Array) -> Model:
    """A model of ``y = a @ b`` for arrays of these shapes and types."""
    return _model([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b}, {}, (a.shape[0], b.shape[1]))


# Operators that wait for memory


@dataclasses.dataclass(frozen=True)
class MemoryBound:
    """An operator on ``inputs`` float32 tensors of one shape, whose result has the shape ``result``.

    ``nodes`` compute ``y`` from ``x0``, ``x1`` and ``weights``; ``torch_function`` takes torch and gives the same as a
    function of the inputs.
    """

    name: str
    shape: tuple[int, ...]
    nodes: tuple[onnx.NodeProto, ...]
    torch_function: Callable[[Any], Callable[..., Any]]
    result: tuple[int, ...]
    inputs: int = 1
    weights: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What has to be read and written at least."""
        return 4 * (self.inputs * math.prod(self.shape) + math.prod(self.result))

    def feeds(self) -> dict[str, Array]:
        return {f"x{number}": _random(self.shape, number) for number in range(self.inputs)}

    def model(self) -> Model:
        examples = {f"x{n}": np.broadcast_to(np.float32(0), self.shape) for n in range(self.inputs)}
        return _model(self.nodes, examples, self.weights, self.result)


_ROWS, _COLUMNS = 16384, 2048  # 128 MB: more than any cache of a GPU
_node = helper.make_node


def _norm(torch: Any) -> Callable[..., Any]:
    scale, bias = (torch.full((_COLUMNS,), value, device="cuda") for value in (1.5, 0.5))
    return lambda x: torch.nn.functional.layer_norm(x, (_COLUMNS,), scale, bias)


def _axes(*axes: int) -> dict[str, Array]:
    return {"axes": np.array(axes, np.int64)}


MEMORY: tuple[MemoryBound, ...] = (
    MemoryBound(
        "softmax",
        (_ROWS, _COLUMNS),
        (_node("Softmax", ["x0"], ["y"], axis=-1),),
        lambda torch: lambda x: torch.softmax(x, -1),
        (_ROWS, _COLUMNS),
    ),
    MemoryBound(
        "layer norm",
        (_ROWS, _COLUMNS),
        (_node("LayerNormalization", ["x0", "scale", "bias"], ["y"], axis=-1, epsilon=1e-5),),
        _norm,
        (_ROWS, _COLUMNS),
        weights={"scale": np.full(_COLUMNS, 1.5, np.float32), "bias": np.full(_COLUMNS, 0.5, np.float32)},
    ),
    MemoryBound(
        "add + relu",
        (_ROWS // 2, _COLUMNS),
        (_node("Add", ["x0", "x1"], ["sum"]), _node("Relu", ["sum"], ["y"])),
        lambda torch: lambda x, z: torch.relu(x + z),
        (_ROWS // 2, _COLUMNS),
        inputs=2,
    ),
    MemoryBound(
        "transpose",
        (_ROWS, _COLUMNS),
        (_node("Transpose", ["x0"], ["y"], perm=[1, 0]),),
        lambda torch: lambda x: x.t().contiguous(),
        (_COLUMNS, _ROWS),
    ),
    MemoryBound(
        "NCHW to NHWC",
        (32, 64, 128, 128),
        (_node("Transpose", ["x0"], ["y"], perm=[0, 2, 3, 1]),),
        lambda torch: lambda x: x.permute(0, 2, 3, 1).contiguous(),
        (32, 128, 128, 64),
    ),
    MemoryBound(
        "sum of the last axis",
        (_ROWS, _COLUMNS),
        (_node("ReduceSum", ["x0", "axes"], ["y"], keepdims=0),),
        lambda torch: lambda x: x.sum(-1),
        (_ROWS,),
        weights=_axes(1),
    ),
    MemoryBound(
        "sum of the first axis",
        (_ROWS, _COLUMNS),
        (_node("ReduceSum", ["x0", "axes"], ["y"], keepdims=0),),
        lambda torch: lambda x: x.sum(0),
        (_COLUMNS,),
        weights=_axes(0),
    ),
)
