"""Comparing a compiled model with the ONNX reference implementation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.importers.onnx.reference import ModelNode, ReferenceModel
from polycomp.options import Options
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]

TOLERANCE = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-8}
"""The largest error of an element that counts as equal, as a share of the tensor's largest magnitude; 0 for others."""


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
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        problem = f"is {got.dtype}{list(got.shape)}, the reference is {wanted.dtype}{list(wanted.shape)}"
        return Comparison(node, name, float("inf"), problem)
    difference, at = _largest_difference(got, wanted)
    scale = float(np.max(np.abs(_finite(wanted)), initial=0.0))
    error = difference / scale if scale and np.isfinite(difference) else difference
    if error <= TOLERANCE.get(str(got.dtype), 0.0):
        return Comparison(node, name, error, "")
    return Comparison(node, name, error, f"is {got[at]!s} at {list(at)}, the reference is {wanted[at]!s}")


def _largest_difference(got: Array, wanted: Array) -> tuple[float, tuple[int, ...]]:
    """The largest difference and where it is; infinite where only one is a NaN, or infinities differ."""
    if not got.size:
        return 0.0, ()
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf))
    at = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return float(difference[at]), tuple(int(i) for i in at)


def _finite(values: Array) -> Array:
    numbers: Array = values.astype(np.float64)
    return numbers[np.isfinite(numbers)]
