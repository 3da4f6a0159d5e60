"""A small encoder of a transformer, like those of sentences: open batch and length, and a mask of what is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]

WORDS, LONGEST = 200, 64
"""Embeddings: of words, and of positions."""


class _Builder:
    """Nodes and weights; the weights are random."""

    def __init__(self, dtype: str) -> None:
        self.random = np.random.default_rng(0)
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def weight(self, *shape: int, around: float = 0.0) -> str:
        values = self.random.standard_normal(shape) / np.sqrt(shape[0]) + around
        return self.constant(values.astype(self.dtype))

    def constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, self.dtype))

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def dense(self, x: str, width: int, out: int) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(width, out)), self.weight(out))

    def normalised(self, x: str, width: int) -> str:
        scale, shift = self.weight(width, around=1.0), self.weight(width)
        return self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)


def encoder(
    layers: int = 2, width: int = 48, heads: int = 4, inner: int = 96, dtype: str = "float32"
) -> onnx.ModelProto:
    """Of ``input_ids`` and ``attention_mask`` [batch, sequence]: ``hidden``, and ``sentence``, the mean over the words
    that are no padding, of length 1."""
    b = _Builder(dtype)
    words = b.add("Gather", b.weight(WORDS, width), "input_ids")
    length = b.add("Shape", "input_ids", start=1, end=2)
    positions = b.add("Slice", b.weight(LONGEST, width), b.integers(0), length, b.integers(0))
    x = b.normalised(b.add("Add", words, positions), width)
    kept = b.add("Cast", "attention_mask", to=helper.np_dtype_to_tensor_dtype(b.dtype))
    hidden = b.add("Mul", b.add("Sub", b.number(1.0), kept), b.number(-1e4))
    mask = b.add("Unsqueeze", hidden, b.integers(1, 2))
    for _ in range(layers):
        x = _layer(b, x, mask, width, heads, inner)
    b.add("Identity", x, output="hidden")
    _mean_of_words(b, x, kept)
    names = [("input_ids", "int64"), ("attention_mask", "int64")]
    inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.INT64, ["batch", "sequence"]) for n, _ in names]
    code = helper.np_dtype_to_tensor_dtype(b.dtype)
    outputs = [helper.make_tensor_value_info(n, code, None) for n in ("hidden", "sentence")]
    graph = helper.make_graph(b.nodes, "encoder", inputs, outputs, b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _layer(b: _Builder, x: str, mask: str, width: int, heads: int, inner: int) -> str:
    attended = b.dense(_attention(b, x, mask, width, heads), width, width)
    x = b.normalised(b.add("Add", attended, x), width)
    wide = b.dense(x, width, inner)
    error = b.add("Add", b.add("Erf", b.add("Div", wide, b.number(2**0.5))), b.number(1.0))
    gelu = b.add("Mul", b.add("Mul", wide, error), b.number(0.5))
    return b.normalised(b.add("Add", b.dense(gelu, inner, width), x), width)


def _attention(b: _Builder, x: str, mask: str, width: int, heads: int) -> str:
    def head(turned: Sequence[int]) -> str:
        shape = b.integers(0, 0, heads, width // heads)
        return b.add("Transpose", b.add("Reshape", b.dense(x, width, width), shape), perm=turned)

    query, key, value = head((0, 2, 1, 3)), head((0, 2, 3, 1)), head((0, 2, 1, 3))
    scores = b.add("Div", b.add("MatMul", query, key), b.number((width // heads) ** 0.5))
    shares = b.add("Softmax", b.add("Add", scores, mask), axis=-1)
    mixed = b.add("Transpose", b.add("MatMul", shares, value), perm=(0, 2, 1, 3))
    return b.add("Reshape", mixed, b.integers(0, 0, width))


def _mean_of_words(b: _Builder, x: str, kept: str) -> None:
    weights = b.add("Unsqueeze", kept, b.integers(2))
    total = b.add("ReduceSum", b.add("Mul", x, weights), b.integers(1), keepdims=0)
    mean = b.add("Div", total, b.add("ReduceSum", weights, b.integers(1), keepdims=0))
    size = b.add("ReduceL2", mean, axes=[1], keepdims=1)
    b.add("Div", mean, size, output="sentence")


def sentences(batch: int, length: int) -> dict[str, Array]:
    """Random words, some of them padding; each sentence has a word at least."""
    random = np.random.default_rng([batch, length])
    lengths = random.integers(1, length + 1, (batch, 1))
    mask = (np.arange(length) < lengths).astype(np.int64)
    return {"input_ids": random.integers(0, WORDS, (batch, length)), "attention_mask": mask}
