"""The roofline chart: FLOPs per byte to the right, GFLOP/s upwards, both in powers of ten, and a circle per kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polycomp.driver import svg
from polycomp.driver.axes import Axis, grid
from polycomp.roofline.reasons import Point, efficiency, reasons
from polycomp.roofline.roofs import Roofs

_WIDTH, _HEIGHT = 960, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 20, 45
_LEAST_RADIUS, _RADIUS = 2.5, 16.0
_OTHERS = "#888"
_ACROSS = "FLOPs per byte of inputs and outputs"


def roofline_chart(points: Sequence[Point], roofs: Roofs) -> str:
    """The chart as SVG. Circles are as large as their share of the time.

    A kernel without floating-point operations stands at the left edge, as far below the memory's roof as its bandwidth
    is below the memory's.
    """
    axes = _Axes(points, roofs)
    total = sum(p.nanoseconds for p in points)
    colours = _colours(points)
    circles = [_circle(p, axes, roofs, total, colours) for p in sorted(points, key=lambda p: -p.nanoseconds)]
    parts = [*grid(axes.x, axes.y, _ACROSS, "GFLOP/s"), *_roofs(axes, roofs), *circles, *_legend(colours)]
    return svg.picture(_WIDTH, _HEIGHT, f"Roofline of {len(points)} kernel calls", parts)


class _Axes:
    """Where figures are in the picture; the ranges are whole powers of ten around everything."""

    def __init__(self, points: Sequence[Point], roofs: Roofs) -> None:
        ridge = roofs.gflops / roofs.memory
        intensities = [p.intensity for p in points if p.flops and p.bytes]
        left = math.floor(math.log10(min([*intensities, roofs.gflops / roofs.cache / 10])))
        right = math.ceil(math.log10(max([*intensities, 10 * ridge])))
        self.least = 10.0**left
        self.x = Axis(self.least, 10.0**right, _LEFT, _WIDTH - _RIGHT, logarithmic=True)
        bottom = math.floor(math.log10(min([*(self.height(p) for p in points), roofs.gflops / 10])))
        top = math.ceil(math.log10(roofs.gflops * 1.2))
        self.y = Axis(10.0**bottom, 10.0**top, _HEIGHT - _BOTTOM, _TOP, logarithmic=True)

    def intensity(self, point: Point) -> float:
        """FLOPs per byte, within the picture."""
        return min(max(point.intensity, self.least), self.x.high)

    def height(self, point: Point) -> float:
        """GFLOP/s; at the left edge what the same bandwidth would make of as many FLOPs per byte."""
        return max(point.gflops, point.gbps * self.least, 1e-6) if not point.flops else point.gflops


def _roofs(axes: _Axes, roofs: Roofs) -> list[str]:
    """The flat roof of arithmetic, and a slope for each memory up to it."""
    ridge = roofs.gflops / roofs.cache
    y = axes.y.at(roofs.gflops)
    parts = [svg.line(axes.x.at(max(ridge, axes.least)), y, _WIDTH - _RIGHT, y, 2)]
    parts.append(svg.label(_WIDTH - _RIGHT, y - 6, f"peak {roofs.gflops:.0f} GFLOP/s", "end"))
    for name, bandwidth in (("memory", roofs.memory), ("second-level cache", roofs.cache)):
        # Up from where it enters the picture, from the left or from below.
        begin = max(axes.least, axes.y.low / bandwidth)
        end = roofs.gflops / bandwidth
        parts.append(svg.line(axes.x.at(begin), axes.y.at(begin * bandwidth), axes.x.at(end), y, 2))
        where = math.sqrt(begin * end)
        text = f"{name} {bandwidth:.0f} GB/s"
        parts.append(svg.label(axes.x.at(where) + 8, axes.y.at(where * bandwidth) + 12, text))
    return parts


def _circle(point: Point, axes: _Axes, roofs: Roofs, total: float, colours: dict[str, str]) -> str:
    share = point.nanoseconds / total
    words = (
        f"{point.symbol} ({', '.join(point.sources)})\n{point.nanoseconds / 1e3:.3g} µs, {share:.1%} of the time\n"
        f"{point.gflops:.1f} GFLOP/s, {point.gbps:.1f} GB/s, {efficiency(point, roofs):.0%} of its roof\n"
        + "\n".join(reasons(point, roofs))
    )
    return svg.element(
        "circle",
        svg.title(words),
        cx=axes.x.at(axes.intensity(point)),
        cy=axes.y.at(axes.height(point)),
        r=max(_LEAST_RADIUS, _RADIUS * math.sqrt(share)),
        fill=colours.get(_family(point), _OTHERS),
        fill_opacity=0.6,
        stroke="currentColor",
        stroke_width=0.5,
    )


def _family(point: Point) -> str:
    """What the kernel is called without its digest."""
    return point.symbol.rpartition("_")[0] or point.symbol


def _colours(points: Sequence[Point]) -> dict[str, str]:
    """A colour for each family of kernels that takes much of the time."""
    times: dict[str, float] = {}
    for point in points:
        times[_family(point)] = times.get(_family(point), 0.0) + point.nanoseconds
    ordered = sorted(times, key=lambda name: -times[name])
    return dict(zip(ordered, svg.COLOURS, strict=False))


def _legend(colours: dict[str, str]) -> list[str]:
    parts = []
    for i, (name, colour) in enumerate({**colours, "others": _OTHERS}.items()):
        y = _HEIGHT - _BOTTOM - 12 - 16 * (len(colours) - i)
        parts.append(svg.element("circle", cx=_WIDTH - 230, cy=y, r=5, fill=colour, fill_opacity=0.8))
        parts.append(svg.label(_WIDTH - 220, y + 4, name))
    return parts
