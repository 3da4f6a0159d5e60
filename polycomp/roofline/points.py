"""The kernels of a model as points of a roofline: their times, their work, and what is known of their loops."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.driver.kernel import loop_nest
from polycomp.driver.kernels import task_of
from polycomp.driver.lower import Call
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.expr import Var
from polycomp.options import Options
from polycomp.roofline.reasons import Point
from polycomp.roofline.traits import Traits, traits_of
from polycomp.runtime import Module
from polycomp.runtime.binding import bind

Feeds = Mapping[str, np.ndarray[Any, Any]]

_RUNS = 21
_ELEMENT = 4  # bytes of a float32


def measured_points(module: Module, feeds: Feeds, traits: Mapping[str, Traits]) -> list[Point]:
    """One point per step of the module; ``traits`` are by kernel, as far as they are known."""
    module.run(feeds)
    runs = [module.run_profiled(feeds)[1] for _ in range(_RUNS)]
    points = []
    for steps in zip(*runs, strict=True):
        step, time = steps[0], statistics.median(s.nanoseconds for s in steps)
        known = traits.get(step.symbol)
        points.append(Point(step.symbol, step.sources, max(1.0, time), step.flops, step.bytes, known))
    return points


def model_traits(model: pathlib.Path, options: Options, module: Module, feeds: Feeds) -> dict[str, Traits]:
    """What is known of the loops of each kernel of an ONNX model; ``module`` was compiled from it."""
    graph = import_graph(model, options, Observer())
    sizes = dict(zip((s.name for s in module.manifest.symbols), bind(module.manifest, feeds).sizes, strict=True))
    calls = lower_model(graph, options, Observer()).calls
    return kernel_traits(calls, sizes, options)


def kernel_traits(calls: Sequence[Call], sizes: Mapping[str, int], options: Options) -> dict[str, Traits]:
    """The traits of the kernels of ``calls`` by symbol, when the sizes bound at run time have these values."""
    return {symbol: _traits(call, sizes, options) for symbol, call in {c.symbol: c for c in calls}.items()}


def _traits(call: Call, sizes: Mapping[str, int], options: Options) -> Traits:
    nest, _ = loop_nest(*task_of(call, options))
    values: dict[Var, int] = {new: sizes[old.name] for new, old in call.kernel.parameters.items()}
    return traits_of(nest, values, options.target.lanes(_ELEMENT))
