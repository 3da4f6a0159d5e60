"""The kernels of a model as layers to tune."""

from __future__ import annotations

from polycomp.options import Options
from polycomp.tuner.session import Layer, MakeSearch
from polycomp.tuner.ways import Lower, Ways, find_ways
from polycomp.tuner.workload import workload_of_call


def layers_of(lower: Lower, options: Options, make_search: MakeSearch) -> tuple[list[Layer], Ways]:
    """One layer per kernel that has something to decide or is part of another way, in the order of the model; first
    those of the model as the passes make it."""
    lowered = lower({})
    ways, others = find_ways(lowered, lower)
    constants = frozenset(lowered.graph.constants)
    calls = {call.symbol: (call, constants) for call in lowered.calls} | others
    compared = {symbol for choice in ways.choices for way in choice.ways.values() for symbol in way}
    layers = []
    for symbol, (call, weights) in calls.items():
        layer = Layer(workload_of_call(call, weights, options.kernel_target), ways.calls[symbol], make_search)
        layers += [layer] if layer.space.own.made or symbol in compared else []
    return layers, ways
