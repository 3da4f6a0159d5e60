"""Comparing a compiled model with the ONNX reference implementation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.driver.closeness import disagreement
from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.importers.onnx.reference import ModelNode, ReferenceModel
from polycomp.options import Options
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One tensor: ``error`` is the largest difference of an element, as a share of the largest magnitude; infinite
    where shapes, types or NaNs differ. ``problem`` says what is wrong, and is empty when nothing is."""

    node: ModelNode
    tensor: str
    error: float
    problem: str


def check_outputs(reference: ReferenceModel, module: Module, feeds: Mapping[str, Array]) -> list[Comparison]:
    """Compare the outputs of ``module`` for ``feeds``, in the model's order."""
    makers = {output: node for node in reference.nodes for output in node.outputs}
    wanted = reference.values(feeds)
    got = module.run(dict(feeds))
    return [compare(makers.get(n) or ModelNode(n, "Output", (n,)), n, got[n], wanted[n]) for n in reference.outputs]


def check_layers(
    reference: ReferenceModel, options: Options, feeds: Mapping[str, Array], observer: Observer
) -> list[Comparison]:
    """Compile the model with every node's values as outputs, and compare them all, in the model's order."""
    module = compile_model(reference.exposed, options, observer).module(options.threads)
    wanted = reference.values(feeds)
    got = module.run(dict(feeds))
    tensors = [(node, name) for node in reference.nodes for name in node.outputs if name in got and name in wanted]
    return [compare(node, name, got[name], wanted[name]) for node, name in tensors]


def first_wrong(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The first comparison that found a difference."""
    return next((c for c in comparisons if c.problem), None)


def compare(node: ModelNode, name: str, got: Array, wanted: Array) -> Comparison:
    """How far ``got`` is from ``wanted``."""
    return Comparison(node, name, *disagreement(got, wanted))
