"""Charts on pages, drawn by plotly: the one place that knows it, and what all charts have in common.

plotly is optional and only imported when a chart is made.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import importlib.util
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from polycomp.errors import PolycompError

COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f")
"""Of things that are told apart, legible on white and on black."""

GREY = "#888"
"""Of everything else, for the same reason."""

_GRID = "rgba(128,128,128,0.25)"
_CONFIG = {"responsive": True, "displayModeBar": False}  # its buttons would cover the chart; dragging zooms anyway
_DETAILED = 3.0  # powers of ten, up to which 2 and 5 times each are labelled as well
_MARGINS = {"l": 10, "r": 16, "t": 16, "b": 10}  # beside labels, for which plotly makes room by itself
_HOVER_WIDTH = 64  # characters: a phone's screen shows no more


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure of plotly. The title is the page's, where it wraps on narrow screens."""

    title: str
    figure: Any


@dataclasses.dataclass(frozen=True)
class Grid:
    """Small charts, which stand side by side where there is room. The title says what all of them show."""

    title: str
    charts: Sequence[Chart]


def check_installed() -> None:
    """Find out before a long work, not after it, that charts cannot be drawn."""
    if importlib.util.find_spec("plotly") is None:
        raise PolycompError("--html needs plotly, which is not installed; pip install polycomp[html]")


def graph_objects() -> Any:
    """plotly's module of traces and figures."""
    return importlib.import_module("plotly.graph_objects")  # optional: pip install polycomp[html]


def figure(traces: Sequence[Any], height: int, x: Mapping[str, Any], y: Mapping[str, Any], **layout: Any) -> Any:
    """A figure that suits light and dark pages. ``x`` and ``y`` are settings of the axes, ``layout`` further ones."""
    axes = {"gridcolor": _GRID, "linecolor": GREY, "zeroline": False, "automargin": True}
    look = {
        "template": "none",
        "height": height,
        "margin": _MARGINS,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui,sans-serif", "size": 12, "color": GREY},
        "hoverlabel": {"align": "left", "font": {"size": 12}},
        "showlegend": False,
        "xaxis": {**axes, **x},
        "yaxis": {**axes, **y},
    }
    return graph_objects().Figure(traces, {**look, **layout})


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Settings of an axis."""
    return {"title": {"text": title, "standoff": 8}, **settings}


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Settings of a logarithmic axis, with so many labels that they stand clear of each other."""
    limits = [math.log10(low), math.log10(high)]
    step = "D2" if limits[1] - limits[0] <= _DETAILED else 1
    return axis(title, type="log", range=limits, dtick=step, tickformat="~g")


def words(*lines: str) -> str:
    """Text as plotly takes it, which knows some of HTML's elements. Long lines are broken."""
    broken = [part for line in lines for part in textwrap.wrap(line, _HOVER_WIDTH)]
    return "<br>".join(html.escape(part, quote=False) for part in broken)


def script() -> str:
    """plotly's own code in JavaScript, which every page with charts holds once."""
    return f"<script>{importlib.import_module('plotly.offline').get_plotlyjs()}</script>"


def element(chart: Chart, name: str) -> str:
    """The chart as an element of a page, on which ``name`` is its own."""
    drawn = importlib.import_module("plotly.io").to_html(
        chart.figure, full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=name
    )
    return f"<figure><figcaption>{html.escape(chart.title)}</figcaption>{drawn}</figure>"
