"""The light models of the onnx package, with weights.

The package carries the graphs of well-known image networks without their weights: each weight is a ConstantOfShape
node. Here every such weight becomes random numbers of a fixed seed, scaled so that activations keep their size from
layer to layer (He et al., "Delving Deep into Rectifiers", 2015).
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


def light_model_path(name: str) -> pathlib.Path:
    """The file of a light model of the onnx package, for example ``"squeezenet"``."""
    folder = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return folder / f"light_{name}.onnx"


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """The light model ``name`` with random weights; the same seed gives the same weights."""
    model = onnx.load(light_model_path(name))
    fill_weights(model, seed)
    return model


def fill_weights(model: onnx.ModelProto, seed: int = 0) -> None:
    """Replace the ConstantOfShape nodes of ``model`` that make weights by random initializers."""
    graph = model.graph
    random = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    uses = _uses(graph)
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = tuple(int(d) for d in shapes[node.input[0]])
            weight = _weight(shape, *_role(uses, node.output[0]), random)
            graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _uses(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int]]:
    """The first node that reads each value, and as which of its inputs."""
    uses: dict[str, tuple[onnx.NodeProto, int]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            uses.setdefault(name, (node, position))
    return uses


def _role(uses: dict[str, tuple[onnx.NodeProto, int]], name: str) -> tuple[str, int]:
    """The operator that a weight is for, and which of its inputs; seen through reshapes."""
    node, position = uses[name]
    if node.op_type in ("Reshape", "Unsqueeze") and position == 0:
        return _role(uses, node.output[0])
    return node.op_type, position


def _weight(shape: tuple[int, ...], op: str, position: int, random: np.random.Generator) -> Array:
    noise = random.standard_normal(shape).astype(np.float32)
    is_scale = (op == "BatchNormalization" and position in (1, 4)) or op == "Mul"  # position 4: the variance
    if is_scale:
        return 1 + 0.1 * np.abs(noise)
    if len(shape) < 2:
        return np.float32(0.05) * noise
    return noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
