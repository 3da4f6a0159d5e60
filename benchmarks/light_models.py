"""Light ONNX models, whose graph is real and whose weights are left out, filled with seeded random weights.

Two kinds are understood: initializers without data whose doc_string is ``light:normal:MEAN:STD`` or
``light:const:VALUE``, and the ``light_*.onnx`` files inside the onnx package, where a ConstantOfShape node stands for
each weight. Random weights multiply their scale layer by layer, so each of the latter has a gain (``gains.json``) that
keeps its logits at a standard deviation near 2: saturated outputs would hide wrong layers.

    python benchmarks/light_models.py light_resnet50.onnx resnet50.onnx [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]

GAINS = pathlib.Path(__file__).with_name("gains.json")
_PACKAGE = pathlib.Path(onnx.backend.test.__file__).parent / "data" / "light"
_MARK = "light:"
_RESHAPING = ("Unsqueeze", "Reshape")


def package_models() -> list[pathlib.Path]:
    """The light models inside the installed onnx package."""
    return sorted(_PACKAGE.glob("light_*.onnx"))


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """A light model of the onnx package, for example ``"squeezenet"``, filled."""
    return load_filled(_PACKAGE / f"light_{name}.onnx", seed)


def load_filled(path: pathlib.Path, seed: int = 0) -> onnx.ModelProto:
    """The model at ``path`` with all left-out weights filled in; the same seed gives the same weights."""
    gains: dict[str, float] = json.loads(GAINS.read_text())
    model = onnx.load(path)
    generator = np.random.default_rng(seed)
    _fill_initializers(model.graph, generator)
    _fill_constants_of_shape(model.graph, generator, gains.get(path.stem, 1.0))
    return model


def _fill_initializers(graph: onnx.GraphProto, generator: np.random.Generator) -> None:
    for tensor in graph.initializer:
        if tensor.doc_string.startswith(_MARK):
            value = _described(tensor, generator).astype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _described(tensor: onnx.TensorProto, generator: np.random.Generator) -> Array:
    """The values that the doc_string of ``tensor`` describes."""
    kind, *numbers = tensor.doc_string.removeprefix(_MARK).split(":")
    shape = tuple(tensor.dims)
    if kind == "const":
        return np.full(shape, float(numbers[0]))
    mean, deviation = map(float, numbers)
    return generator.standard_normal(shape, dtype=np.float32) * deviation + mean


def _fill_constants_of_shape(graph: onnx.GraphProto, generator: np.random.Generator, gain: float) -> None:
    """Make an initializer of every ConstantOfShape whose shape is an initializer."""
    shapes = {t.name: tuple(map(int, numpy_helper.to_array(t).ravel())) for t in graph.initializer if t.dims}
    nodes = list(graph.node)
    weights = [n for n in nodes if n.op_type == "ConstantOfShape" and n.input[0] in shapes]
    users = _first_users(nodes)
    # Where normalisation follows, it sets the scale; elsewhere the kernels do.
    kernel_gain = 1.0 if any(n.op_type == "BatchNormalization" for n in nodes) else gain
    for node in weights:
        op, position = _role(node.output[0], users)
        value = _weight(shapes[node.input[0]], op, position, kernel_gain, gain, generator)
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
        graph.node.remove(node)


def _first_users(nodes: list[onnx.NodeProto]) -> dict[str, tuple[onnx.NodeProto, int]]:
    """For each value the first node that reads it, and as which input."""
    users: dict[str, tuple[onnx.NodeProto, int]] = {}
    for node in nodes:
        for position, name in enumerate(node.input):
            users.setdefault(name, (node, position))
    return users


def _role(name: str, users: Mapping[str, tuple[onnx.NodeProto, int]]) -> tuple[str, int]:
    """The operator that uses the weight ``name``, looking through reshapes, and as which input."""
    node, position = users[name]
    while node.op_type in _RESHAPING and position == 0:
        node, position = users[node.output[0]]
    return node.op_type, position


def _weight(
    shape: tuple[int, ...], op: str, position: int, kernel_gain: float, norm_gain: float, generator: np.random.Generator
) -> Array:
    noise = generator.standard_normal(shape)
    positive = 1 + 0.1 * np.abs(noise)
    if op == "BatchNormalization":  # inputs 1 to 4 are scale, bias, mean and variance
        return {1: norm_gain * positive, 4: positive}.get(position, 0.1 * noise)
    if op == "Mul":  # a normalisation exported as Mul and Add
        return norm_gain * positive
    if len(shape) > 1:  # He et al., arXiv:1502.01852: variance 2 / fan-in
        return kernel_gain * noise * math.sqrt(2.0 / math.prod(shape[1:]))
    return 0.05 * noise


def random_feeds(model: onnx.ModelProto, sizes: Mapping[str, int], seed: int = 1) -> dict[str, Array]:
    """Random values for the model's inputs; ``sizes`` gives symbolic dimensions by name (others: 1)."""
    generator = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    return {i.name: _feed(i, sizes, generator) for i in inputs}


def _feed(value: onnx.ValueInfoProto, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    kind = value.type.tensor_type
    shape = [d.dim_value or sizes.get(d.dim_param, 1) for d in kind.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if value.name == "attention_mask":
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, 500, shape).astype(dtype)
    return np.asarray(generator.standard_normal(shape)).astype(dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("light", type=pathlib.Path)
    parser.add_argument("filled", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    onnx.save(load_filled(arguments.light, arguments.seed), arguments.filled)


if __name__ == "__main__":
    main()
