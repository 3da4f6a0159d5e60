"""Models whose graphs are written for one sample, made to take several at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

_SHAPES = ("Reshape", "Expand")  # their second input is a shape


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of a model for ``batch`` samples. The first dimension of every input must be that of the samples.

    Besides the inputs, constant shapes are changed that results are reshaped or expanded to and that begin with 1.
    That fits networks that treat all samples alike; compare the outputs with those for single samples.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {t.name for t in graph.initializer}
    for value in [i for i in graph.input if i.name not in weights]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in graph.output:  # what they are follows from the inputs
        value.type.tensor_type.ClearField("shape")
    graph.ClearField("value_info")
    for tensor in _shape_tensors(graph):
        shape = numpy_helper.to_array(tensor)
        if shape.size > 1 and shape[0] == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.array([batch, *shape[1:]], shape.dtype), tensor.name))
    return copy


def _shape_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The constants that are shapes for :data:`_SHAPES`: all that something is expanded to, and those that what is
    computed from the graph's inputs is reshaped to."""
    constants = {t.name: t for t in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    makers = {name: node for node in graph.node for name in node.output}
    computed = _computed(graph)
    for node in graph.node:
        if node.op_type in _SHAPES and (node.op_type == "Expand" or node.input[0] in computed):
            shape = node.input[1]
            # What exporters make of expand(..., -1): Where(shape == -1, 1, shape).
            if shape in makers and makers[shape].op_type == "Where":
                shape = makers[shape].input[2]
            if shape in constants:
                yield constants[shape]


def _computed(graph: onnx.GraphProto) -> set[str]:
    """The names of all values that depend on the graph's inputs; nodes are in order."""
    weights = {t.name for t in graph.initializer}
    found = {i.name for i in graph.input} - weights
    for node in graph.node:
        if found.intersection(node.input):
            found.update(node.output)
    return found
