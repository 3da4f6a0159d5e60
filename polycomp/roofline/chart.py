"""The roofline chart: FLOPs per byte to the right, GFLOP/s upwards, both in powers of ten, and a circle per kernel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from polycomp.driver import charts
from polycomp.driver.charts import Chart
from polycomp.roofline.reasons import Point, efficiency, reasons
from polycomp.roofline.roofs import Roofs

_HEIGHT = 600
_LEAST_DIAMETER, _DIAMETER = 6.0, 72.0
_NUMBERED = 5  # of the slowest calls, as far as their numbers stand clear of each other
_CLEARANCE = 0.05  # of the chart's width or height
_ROOM = 3.0  # times the peak: for the names of roofs, which stand above them
_MARGIN = 0.03  # of the chart's width
_OTHERS = "others"


def roofline_chart(points: Sequence[Point], roofs: Roofs) -> Chart:
    """The chart. Circles are as large as their share of the time.

    A kernel without floating-point operations stands at the left edge, as far below the memory's roof as its bandwidth
    is below the memory's.
    """
    extent = _extent(points, roofs)
    figure = charts.figure(
        [*_slopes(extent, roofs), _peak(extent, roofs), *_circles(points, extent, roofs), _numbers(points, extent)],
        _HEIGHT,
        charts.log_axis("FLOPs per byte of inputs and outputs", extent.left, extent.right),
        charts.log_axis("GFLOP/s", extent.bottom, extent.top),
        showlegend=True,
        legend={"orientation": "h", "y": -0.12, "yanchor": "top", "itemsizing": "constant"},
    )
    many = f"{len(points)} kernel calls, as large as their share of the time"
    return Chart(f"Roofline of {many}; the slowest are numbered as in the table below", figure)


@dataclasses.dataclass(frozen=True)
class _Extent:
    """The ranges: ``least`` is where kernels without floating-point operations stand, a little to the right of the left
    edge, so that their circles are whole."""

    least: float
    right: float
    bottom: float
    top: float

    @property
    def left(self) -> float:
        return self.least / math.pow(self.right / self.least, _MARGIN)

    def place(self, point: Point) -> tuple[float, float]:
        """FLOPs per byte, within the chart, and GFLOP/s: without any what the bandwidth would make of ``least``."""
        height = point.gflops if point.flops else max(point.gbps * self.least, 1e-6)
        return min(max(point.intensity, self.least), self.right), height

    def distance(self, one: tuple[float, float], other: tuple[float, float]) -> float:
        """As a part of the chart's width or height, whichever is more."""
        across = math.log(one[0] / other[0]) / math.log(self.right / self.left)
        upwards = math.log(one[1] / other[1]) / math.log(self.top / self.bottom)
        return max(abs(across), abs(upwards))


def _extent(points: Sequence[Point], roofs: Roofs) -> _Extent:
    """Whole powers of ten around everything, but at the top, where there is room for names."""
    intensities = [p.intensity for p in points if p.flops and p.bytes]
    least = 10.0 ** math.floor(math.log10(min([*intensities, roofs.gflops / roofs.cache / 10])))
    right = 10.0 ** math.ceil(math.log10(max([*intensities, 10 * roofs.gflops / roofs.memory])))
    heights = [_Extent(least, right, 0.0, 0.0).place(p)[1] for p in points]
    bottom = 10.0 ** math.floor(math.log10(min([*heights, roofs.gflops / 10])))
    return _Extent(least, right, bottom, _ROOM * max([*heights, roofs.gflops]))


def _slopes(extent: _Extent, roofs: Roofs) -> list[Any]:
    """A slope for each memory, up from where it enters the chart, from the left or from below, to the peak. That of the
    cache is named above its end, that of memory below, where no name would be cut off and few circles are."""
    lines = []
    names = (
        ("second-level cache<br>", roofs.cache, 1.0, "top center"),
        ("memory ", roofs.memory, 0.65, "bottom right"),
    )
    for name, bandwidth, part, side in names:
        begin, end = max(extent.left, extent.bottom / bandwidth), roofs.gflops / bandwidth
        named = begin ** (1 - part) * end**part
        x = [begin, named, end]
        lines.append(_roof(f"{name}{bandwidth:.0f} GB/s", x, [at * bandwidth for at in x], side))
    return lines


def _peak(extent: _Extent, roofs: Roofs) -> Any:
    """The flat roof of arithmetic."""
    x = [max(extent.left, roofs.gflops / roofs.cache), extent.right, extent.right]
    return _roof(f"peak<br>{roofs.gflops:.0f} GFLOP/s", x, [roofs.gflops] * 3, "top left")


def _roof(name: str, x: Sequence[float], y: Sequence[float], side: str) -> Any:
    """A line from the first to the last of three points, with its name at the second."""
    return charts.graph_objects().Scatter(
        x=x,
        y=y,
        mode="lines+text",
        text=["", name, ""],
        textposition=side,
        line={"color": charts.GREY, "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )


def _circles(points: Sequence[Point], extent: _Extent, roofs: Roofs) -> list[Any]:
    """A trace for each family of kernels, small circles above large ones."""
    families = _families(points)
    total = sum(p.nanoseconds for p in points)
    colours = [*charts.COLOURS[: len(families)], charts.GREY]
    traces = []
    for name, colour in zip([*families, _OTHERS], colours, strict=True):
        members = [p for p in _slowest(points) if (_family(p) if _family(p) in families else _OTHERS) == name]
        if members:
            traces.append(_family_trace(name, colour, members, extent, roofs, total))
    return traces


def _family_trace(name: str, colour: str, members: Sequence[Point], extent: _Extent, roofs: Roofs, total: float) -> Any:
    places = [extent.place(p) for p in members]
    return charts.graph_objects().Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        name=charts.words(name),
        hovertext=[_words(p, roofs, total) for p in members],
        hoverinfo="text",
        marker={
            "size": [max(_LEAST_DIAMETER, _DIAMETER * math.sqrt(p.nanoseconds / total)) for p in members],
            "color": colour,
            "opacity": 0.65,
            "line": {"color": charts.GREY, "width": 0.5},
        },
        cliponaxis=False,
    )


def _words(point: Point, roofs: Roofs, total: float) -> str:
    return charts.words(
        f"{point.symbol} ({', '.join(point.sources)})",
        f"{point.nanoseconds / 1e3:.3g} µs, {point.nanoseconds / total:.1%} of the time",
        f"{point.gflops:.1f} GFLOP/s, {point.gbps:.1f} GB/s, {efficiency(point, roofs):.0%} of its roof",
        *reasons(point, roofs),
    )


def _numbers(points: Sequence[Point], extent: _Extent) -> Any:
    """The ranks of the slowest calls, each unless it would stand upon that of a slower one."""
    clear: dict[int, tuple[float, float]] = {}
    for rank, point in enumerate(_slowest(points)[:_NUMBERED], 1):
        place = extent.place(point)
        if all(extent.distance(place, other) >= _CLEARANCE for other in clear.values()):
            clear[rank] = place
    return charts.graph_objects().Scatter(
        x=[x for x, _ in clear.values()],
        y=[y for _, y in clear.values()],
        mode="text",
        text=[f"<b>{rank}</b>" for rank in clear],
        hoverinfo="skip",
        showlegend=False,
    )


def _slowest(points: Sequence[Point]) -> list[Point]:
    return sorted(points, key=lambda p: -p.nanoseconds)


def _family(point: Point) -> str:
    """What the kernel is called without its digest."""
    return point.symbol.rpartition("_")[0] or point.symbol


def _families(points: Sequence[Point]) -> list[str]:
    """Those that take the most time, as many as there are colours."""
    times: dict[str, float] = {}
    for point in points:
        times[_family(point)] = times.get(_family(point), 0.0) + point.nanoseconds
    return sorted(times, key=lambda name: -times[name])[: len(charts.COLOURS)]
