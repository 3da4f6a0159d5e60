"""The ONNX reference implementation, as an oracle: the value of every tensor of a model."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from polycomp.errors import ModelError
from polycomp.importers.onnx.names import node_names
from polycomp.importers.onnx.reader import ModelLike, load_model
from polycomp.importers.onnx.reference_ops import corrections

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class ModelNode:
    """A node of the model itself: its name (see :func:`node_names`), operator, and the values it makes."""

    name: str
    op: str
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ReferenceModel:
    """A model to compare with. ``exposed`` is the model with all values that any node reads as outputs."""

    nodes: tuple[ModelNode, ...]
    outputs: tuple[str, ...]
    proto: onnx.ModelProto
    exposed: onnx.ModelProto
    opset: int

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every tensor of the model for ``inputs``, as the reference implementation computes it."""
        try:
            evaluator = ReferenceEvaluator(self.proto, new_ops=list(corrections(self.opset)))
            values: Any = evaluator.run(None, dict(inputs), intermediate=True)
        except Exception as error:
            raise ModelError(f"the ONNX reference implementation cannot run this model: {error}") from error
        return {name: np.asarray(value) for name, value in values.items() if value is not None}


def read_reference(model: ModelLike) -> ReferenceModel:
    """Read a model, with the weights that it keeps in other files."""
    loaded = load_model(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(loaded.proto)
    if loaded.folder is not None:
        onnx.load_external_data_for_model(proto, str(pathlib.Path(loaded.folder)))
    nodes = tuple(
        ModelNode(name, node.op_type, tuple(o for o in node.output if o))
        for name, node in zip(node_names(proto.graph.node), proto.graph.node, strict=True)
    )
    outputs = tuple(o.name for o in proto.graph.output)
    return ReferenceModel(nodes, outputs, proto, _expose(proto, nodes), loaded.opset)


def _expose(proto: onnx.ModelProto, nodes: tuple[ModelNode, ...]) -> onnx.ModelProto:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    given = {o.name for o in proto.graph.output}
    read = {name for node in proto.graph.node for name in node.input}  # what nobody reads matters to nobody
    for node in nodes:
        added = [name for name in node.outputs if name in read and name not in given]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
    return exposed
