"""The roofline chart: FLOPs per byte to the right, GFLOP/s upwards, both in powers of ten, and a circle per kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polycomp.driver import svg
from polycomp.roofline.reasons import Point, efficiency, reasons
from polycomp.roofline.roofs import Roofs

_WIDTH, _HEIGHT = 960, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 20, 45
_LEAST_RADIUS, _RADIUS = 2.5, 16.0
_COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f")
_OTHERS = "#888"


def roofline_chart(points: Sequence[Point], roofs: Roofs) -> str:
    """The chart as SVG. Circles are as large as their share of the time.

    A kernel without floating-point operations stands at the left edge, as far below the memory's roof as its bandwidth
    is below the memory's.
    """
    axes = _Axes(points, roofs)
    total = sum(p.nanoseconds for p in points)
    colours = _colours(points)
    circles = [_circle(p, axes, roofs, total, colours) for p in sorted(points, key=lambda p: -p.nanoseconds)]
    parts = [*axes.grid(), *_roofs(axes, roofs), *circles, *_legend(colours)]
    return svg.picture(_WIDTH, _HEIGHT, f"Roofline of {len(points)} kernel calls", parts)


class _Axes:
    """Where figures are in the picture; the ranges are whole powers of ten around everything."""

    def __init__(self, points: Sequence[Point], roofs: Roofs) -> None:
        ridge = roofs.gflops / roofs.memory
        intensities = [p.intensity for p in points if p.flops and p.bytes]
        self.left = math.floor(math.log10(min([*intensities, roofs.gflops / roofs.cache / 10])))
        self.right = math.ceil(math.log10(max([*intensities, 10 * ridge])))
        heights = [self.height(p) for p in points]
        self.bottom = math.floor(math.log10(min([*heights, roofs.gflops / 10])))
        self.top = math.ceil(math.log10(roofs.gflops * 1.2))

    def intensity(self, point: Point) -> float:
        """FLOPs per byte, within the picture."""
        return min(max(point.intensity, self.least), 10.0**self.right)

    def height(self, point: Point) -> float:
        """GFLOP/s; at the left edge what the same bandwidth would make of as many FLOPs per byte."""
        return max(point.gflops, point.gbps * self.least, 1e-6) if not point.flops else point.gflops

    @property
    def least(self) -> float:
        return float(10.0**self.left)

    def x(self, intensity: float) -> float:
        share = (math.log10(intensity) - self.left) / (self.right - self.left)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, gflops: float) -> float:
        share = (math.log10(gflops) - self.bottom) / (self.top - self.bottom)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> list[str]:
        """Lines and labels at powers of ten."""
        parts = []
        for power in range(self.left, self.right + 1):
            x = self.x(10.0**power)
            parts.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM, "#ddd"))
            parts.append(svg.label(x, _HEIGHT - _BOTTOM + 16, f"{10.0**power:g}", "middle"))
        for power in range(self.bottom, self.top + 1):
            y = self.y(10.0**power)
            parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#ddd"))
            parts.append(svg.label(_LEFT - 6, y + 4, f"{10.0**power:g}", "end"))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(svg.label(middle, _HEIGHT - 8, "FLOPs per byte of inputs and outputs", "middle"))
        return [*parts, svg.label(_LEFT + 4, _TOP - 6, "GFLOP/s")]


def _roofs(axes: _Axes, roofs: Roofs) -> list[str]:
    """The flat roof of arithmetic, and a slope for each memory up to it."""
    ridge = roofs.gflops / roofs.cache
    y = axes.y(roofs.gflops)
    parts = [_line(axes.x(max(ridge, axes.least)), y, _WIDTH - _RIGHT, y, "#222", 2)]
    parts.append(svg.label(_WIDTH - _RIGHT, y - 6, f"peak {roofs.gflops:.0f} GFLOP/s", "end"))
    for name, bandwidth in (("memory", roofs.memory), ("second-level cache", roofs.cache)):
        # Up from where it enters the picture, from the left or from below.
        begin = max(axes.least, 10.0**axes.bottom / bandwidth)
        end = roofs.gflops / bandwidth
        parts.append(_line(axes.x(begin), axes.y(begin * bandwidth), axes.x(end), y, "#222", 2))
        where = math.sqrt(begin * end)
        text = f"{name} {bandwidth:.0f} GB/s"
        parts.append(svg.label(axes.x(where) + 8, axes.y(where * bandwidth) + 12, text))
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
        cx=axes.x(axes.intensity(point)),
        cy=axes.y(axes.height(point)),
        r=max(_LEAST_RADIUS, _RADIUS * math.sqrt(share)),
        fill=colours.get(_family(point), _OTHERS),
        fill_opacity=0.6,
        stroke="#222",
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
    return dict(zip(ordered, _COLOURS, strict=False))


def _legend(colours: dict[str, str]) -> list[str]:
    parts = []
    for i, (name, colour) in enumerate({**colours, "others": _OTHERS}.items()):
        y = _HEIGHT - _BOTTOM - 12 - 16 * (len(colours) - i)
        parts.append(svg.element("circle", cx=_WIDTH - 230, cy=y, r=5, fill=colour, fill_opacity=0.8))
        parts.append(svg.label(_WIDTH - 220, y + 4, name))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return svg.element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour, stroke_width=width)
