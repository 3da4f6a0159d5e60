"""The memory plan as a chart: steps from left to right, the arena's bytes upwards, a box per intermediate value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polycomp.driver import charts
from polycomp.driver.charts import Chart
from polycomp.runtime import Manifest
from polycomp.runtime.dims import evaluate

_HEIGHT = 420
_LEAST = 1 / 400  # of the arena, so that small values can be seen and pointed at


def arena_chart(manifest: Manifest) -> Chart:
    """The chart. Sizes that are bound at run time count as their least value (but not as 0)."""
    sizes = {symbol.name: max(1, symbol.minimum) for symbol in manifest.symbols}
    steps = max(1, len(manifest.steps))
    total = max(1, evaluate(manifest.arena_bytes, sizes))
    at = f" with {', '.join(f'{name} = {size}' for name, size in sizes.items())}" if sizes else ""
    figure = charts.figure(
        [_boxes(manifest.metadata.get("memory", ()), total, sizes)],
        _HEIGHT,
        charts.axis("step", range=[-0.5, steps - 0.5], tickformat="d", mirror=True),
        charts.axis("bytes", range=[0, total], tickformat=",", mirror=True),
        barmode="overlay",
    )
    return Chart(f"The arena of {total:,} bytes{at}: which value lies where, in which steps", figure)


def _boxes(memory: list[Mapping[str, Any]], total: int, sizes: Mapping[str, int]) -> Any:
    """Bars that stand at their offsets, as wide as the steps in which the values are alive."""
    extents = [(evaluate(entry["offset"], sizes), evaluate(entry["bytes"], sizes)) for entry in memory]
    return charts.graph_objects().Bar(
        x=[(entry["steps"][0] + entry["steps"][1]) / 2 for entry in memory],
        width=[entry["steps"][1] - entry["steps"][0] + 1 for entry in memory],
        base=[offset for offset, _ in extents],
        y=[max(size, total * _LEAST) for _, size in extents],
        hovertext=[_words(entry, *extent) for entry, extent in zip(memory, extents, strict=True)],
        hoverinfo="text",
        marker={
            "color": [charts.COLOURS[i % len(charts.COLOURS)] for i in range(len(memory))],
            "line": {"color": charts.GREY, "width": 0.5},
        },
        opacity=0.75,
    )


def _words(entry: Mapping[str, Any], offset: int, size: int) -> str:
    first, last = entry["steps"]
    return charts.words(f"{entry['value']}", f"{size:,} bytes at {offset:,}", f"steps {first} to {last}")
