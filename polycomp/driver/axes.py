"""Axes of pictures: where a figure is, and lines and labels at round ones."""

from __future__ import annotations

import dataclasses
import math

from polycomp.driver import svg

_TICKS = 5  # at most, of axes that are not logarithmic


@dataclasses.dataclass(frozen=True)
class Axis:
    """From the figure ``low`` at the coordinate ``begin`` to ``high`` at ``end``, by their logarithms where it is
    ``logarithmic``."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def at(self, figure: float) -> float:
        """Its coordinate."""
        low, high, wanted = map(self._scale, (self.low, self.high, figure))
        return self.begin + (wanted - low) / (high - low) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round figures within: multiples of 1, 2 or 5 times a power of ten, or such figures themselves, of which only
        the powers where there are several."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1,) if self.high / self.low >= 100 else (1, 2, 5)
            round_ones = [factor * 10.0**power for power in powers for factor in factors]
            return [x for x in round_ones if self.low * (1 - 1e-9) <= x <= self.high * (1 + 1e-9)]
        rough = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _scale(self, figure: float) -> float:
        return math.log10(figure) if self.logarithmic else figure


def grid(x: Axis, y: Axis, across: str, upwards: str) -> list[str]:
    """Lines and labels at the ticks of both, and what they are."""
    parts = []
    for tick in x.ticks():
        parts.append(svg.line(x.at(tick), y.begin, x.at(tick), y.end, faint=True))
        parts.append(svg.label(x.at(tick), y.begin + 16, f"{tick:g}", "middle"))
    for tick in y.ticks():
        parts.append(svg.line(x.begin, y.at(tick), x.end, y.at(tick), faint=True))
        parts.append(svg.label(x.begin - 6, y.at(tick) + 4, f"{tick:g}", "end"))
    parts.append(svg.label((x.begin + x.end) / 2, y.begin + 34, across, "middle"))
    return [*parts, svg.label(x.begin + 4, y.end - 6, upwards)]
