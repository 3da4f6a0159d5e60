"""Comparing a compiled model with the ONNX reference implementation, and mixed precision with float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.driver.closeness import TOLERANCE, disagreement, largest_difference
from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph
from polycomp.driver.precision import with_kept_nodes
from polycomp.importers.onnx.reader import ModelLike
from polycomp.importers.onnx.reference import ModelNode, ReferenceModel
from polycomp.options import Options
from polycomp.passes import explain_precision
from polycomp.passes.precision import Reason
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One tensor: ``error`` is the largest difference of an element, as a share of the largest magnitude, ``absolute``
    is that difference itself; both are infinite where shapes, types or NaNs differ. ``problem`` says what is wrong, and
    is empty when nothing is."""

    node: ModelNode
    tensor: str
    error: float
    problem: str
    absolute: float = 0.0


@dataclasses.dataclass(frozen=True)
class PrecisionReport:
    """What mixed precision changes: the ``outputs`` and, where these were wanted or an output is wrong, the ``layers``
    compared with float32's, and the nodes that stayed in float32."""

    outputs: Sequence[Comparison]
    layers: Sequence[Comparison]
    kept: Sequence[Reason]


def check_outputs(reference: ReferenceModel, module: Module, feeds: Mapping[str, Array]) -> list[Comparison]:
    """Compare the outputs of ``module`` for ``feeds``, in the model's order."""
    wanted = reference.values(feeds)
    got = module.run(dict(feeds))
    return [compare(_maker(reference, n), n, got[n], wanted[n]) for n in reference.outputs]


def check_layers(
    reference: ReferenceModel, options: Options, feeds: Mapping[str, Array], observer: Observer
) -> list[Comparison]:
    """Compile the model with every node's values as outputs, and compare them all, in the model's order."""
    module = compile_model(reference.exposed, options, observer).module(options.threads)
    wanted = reference.values(feeds)
    got = module.run(dict(feeds))
    tensors = [(node, name) for node in reference.nodes for name in node.outputs if name in got and name in wanted]
    return [compare(node, name, got[name], wanted[name]) for node, name in tensors]


def check_precision(
    reference: ReferenceModel,
    options: Options,
    feeds: Mapping[str, Array],
    observer: Observer,
    per_layer: bool,
) -> PrecisionReport:
    """Compare the model in the precision of ``options`` with itself in float32, both compiled."""
    tolerance = TOLERANCE[options.precision]

    def compare_in(model: ModelLike, named: Sequence[tuple[ModelNode, str]]) -> list[Comparison]:
        got, wanted = (_run(model, o, feeds, observer) for o in (options, _in_float32(options)))
        found = [(node, name) for node, name in named if name in got and name in wanted]
        return [_compare_precision(node, name, got[name], wanted[name], tolerance) for node, name in found]

    outputs = compare_in(reference.proto, [(_maker(reference, name), name) for name in reference.outputs])
    layers: list[Comparison] = []
    if per_layer or first_wrong(outputs):
        layers = compare_in(reference.exposed, [(node, name) for node in reference.nodes for name in node.outputs])
    graph = import_graph(reference.proto, options, observer)
    return PrecisionReport(outputs, layers, explain_precision(graph, with_kept_nodes(graph, options)))


def _in_float32(options: Options) -> Options:
    return dataclasses.replace(options, precision="float32", keep_float32=())


def _run(model: ModelLike, options: Options, feeds: Mapping[str, Array], observer: Observer) -> dict[str, Array]:
    return compile_model(model, options, observer).module(options.threads).run(dict(feeds))


def _compare_precision(node: ModelNode, name: str, got: Array, wanted: Array, tolerance: float) -> Comparison:
    error, problem = disagreement(got, wanted, tolerance, "in float32 it")
    absolute = largest_difference(got, wanted)[0] if got.shape == wanted.shape else float("inf")
    return Comparison(node, name, error, problem, absolute)


def _maker(reference: ReferenceModel, output: str) -> ModelNode:
    """The node that makes an output, or a stand-in for it where it is an input or a constant."""
    makers = (node for node in reference.nodes if output in node.outputs)
    return next(makers, ModelNode(output, "Output", (output,)))


def first_wrong(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The first comparison that found a difference."""
    return next((c for c in comparisons if c.problem), None)


def compare(node: ModelNode, name: str, got: Array, wanted: Array) -> Comparison:
    """How far ``got`` is from ``wanted``."""
    return Comparison(node, name, *disagreement(got, wanted))
