"""The kernels of whole models that are matrix products and convolutions, each as a problem of its own."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from light_models import load_filled

from polycomp.driver.lower import Call
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.driver.work import magnitude
from polycomp.options import Options
from polycomp.schedules.library.analysis import as_contraction
from polycomp.te import Tensor, topological_order


@dataclasses.dataclass(frozen=True)
class Layer:
    """A kernel of a model that contains the contraction ``tensor``, as the model calls it."""

    model: str
    call: Call
    tensor: Tensor

    @property
    def shape(self) -> str:
        """The extents of the result, and of what is summed over."""
        results = "x".join(str(a.extent) for a in self.tensor.axes)
        return f"{results} over {'x'.join(str(a.extent) for a in self.tensor.reduce_axes)}"


def model_layers(path: pathlib.Path, options: Options) -> list[Layer]:
    """The different contractions of a model whose sizes are all known, the most operations first."""
    model = load_filled(path)
    calls = lower_model(import_graph(model, options, Observer()), options, Observer()).calls
    name = path.stem.removeprefix("light_")
    found: Mapping[str, Layer] = {layer.call.symbol: layer for layer in _layers(name, calls)}
    return sorted(found.values(), key=lambda layer: -magnitude(layer.call.flops))


def _layers(model: str, calls: Sequence[Call]) -> Iterator[Layer]:
    for call in calls:
        contractions = [t for t in topological_order(call.kernel.outputs) if as_contraction(t) is not None]
        if contractions and not call.kernel.parameters:
            yield Layer(model, call, contractions[-1])


def choose_layers(by_model: Sequence[Sequence[Layer]], count: int) -> list[Layer]:
    """Up to ``count`` layers that differ: of each model the largest, then of each the second largest, and so on."""
    chosen: dict[str, Layer] = {}
    for rank in range(max(map(len, by_model), default=0)):
        for layers in by_model:
            if rank < len(layers) and len(chosen) < count:
                chosen.setdefault(layers[rank].call.symbol, layers[rank])
    return list(chosen.values())
