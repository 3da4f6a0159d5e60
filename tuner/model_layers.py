"""The kernels of a model as layers to tune."""

from __future__ import annotations

from collections import Counter

from polycomp.driver.lower import Lowered
from polycomp.options import Options
from polycomp.tuner.session import Layer, MakeSearch
from polycomp.tuner.workload import workload_of_call


def layers_of(lowered: Lowered, options: Options, make_search: MakeSearch) -> list[Layer]:
    """One layer per kernel that has something to decide, in the order of the model."""
    counts = Counter(call.symbol for call in lowered.calls)
    calls = {call.symbol: call for call in lowered.calls}
    constants = lowered.graph.constants
    layers = []
    for symbol, call in calls.items():
        workload = workload_of_call(call, constants, options.kernel_target)
        layers.append(Layer(workload, counts[symbol], make_search))
    return [layer for layer in layers if layer.space.own.made]
