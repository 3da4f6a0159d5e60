"""The memory plan as a picture: steps from left to right, the arena's bytes upwards, a box per intermediate value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polycomp.driver import svg
from polycomp.runtime import Manifest
from polycomp.runtime.dims import evaluate

_WIDTH, _HEIGHT = 960, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 10, 30, 30
_LEAST_HEIGHT = 0.5
_TICKS = 4


def arena_picture(manifest: Manifest) -> str:
    """The picture. Sizes that are bound at run time count as their least value (but not as 0)."""
    sizes = {symbol.name: max(1, symbol.minimum) for symbol in manifest.symbols}
    steps = max(1, len(manifest.steps))
    total = max(1, evaluate(manifest.arena_bytes, sizes))
    boxes = [_box(entry, i, steps, total, sizes) for i, entry in enumerate(manifest.metadata.get("memory", ()))]
    at = f" with {', '.join(f'{name} = {size}' for name, size in sizes.items())}" if sizes else ""
    heading = f"The arena of {total:,} bytes{at}: which value lies where, in which steps"
    frame = svg.element(
        "rect", x=_LEFT, y=_TOP, width=_width(), height=_HEIGHT - _TOP - _BOTTOM, fill="none", stroke="#888"
    )
    return svg.picture(_WIDTH, _HEIGHT, heading, [svg.label(_LEFT, 18, heading), *boxes, frame, *_axes(steps, total)])


def _width() -> int:
    return _WIDTH - _LEFT - _RIGHT


def _y(offset: float, total: int) -> float:
    return _HEIGHT - _BOTTOM - offset / total * (_HEIGHT - _TOP - _BOTTOM)


def _box(entry: Mapping[str, Any], number: int, steps: int, total: int, sizes: Mapping[str, int]) -> str:
    first, last = entry["steps"]
    size, offset = evaluate(entry["bytes"], sizes), evaluate(entry["offset"], sizes)
    top, bottom = _y(offset + size, total), _y(offset, total)
    words = f"{entry['value']}: {size:,} bytes at {offset:,}, steps {first} to {last}"
    return svg.element(
        "rect",
        svg.title(words),
        x=_LEFT + first / steps * _width(),
        y=top,
        width=(last + 1 - first) / steps * _width(),
        height=max(_LEAST_HEIGHT, bottom - top),
        fill=svg.COLOURS[number % len(svg.COLOURS)],
        fill_opacity=0.7,
        stroke="#fff",
        stroke_width=0.5,
    )


def _axes(steps: int, total: int) -> list[str]:
    parts = [
        svg.label(_LEFT - 6, _y(total * i / _TICKS, total) + 4, f"{total * i // _TICKS:,}", "end") for i in (0, 2, 4)
    ]
    below = _HEIGHT - _BOTTOM + 18
    parts += [svg.label(_LEFT, below, "step 0"), svg.label(_WIDTH - _RIGHT, below, f"step {steps - 1}", "end")]
    return parts
