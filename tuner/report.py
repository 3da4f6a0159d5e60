"""A tuning log as tables and charts: for the terminal, and as a page of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from polycomp.driver import charts
from polycomp.driver.charts import Chart, Grid
from polycomp.driver.report import Section, html_page
from polycomp.driver.words import kernel_text, seconds_text
from polycomp.tuner.history import Effect, History, Ways, counts, histories, per_inference, rate, seconds, ways
from polycomp.tuner.record import Record

_CURVES = 12  # layers with a curve: those that take the most time
_LEAST_TRIALS = 3  # measured ones, to make a curve
_DETAILED = 6  # layers whose decisions are told
_EFFECTS = 4  # decisions of each
_VALUES = 6  # values of each
_HIGHEST = 3.0  # times the unit: slower trials tell nothing
_LEAST_GAIN = 1.1  # that the axis of gains reaches
_CURVE_HEIGHT, _GUESSES_HEIGHT, _BAR_HEIGHT = 220, 460, 22
_LAYERS = ("kernel", "calls", "share", "library's own", "best", "gain", "trials", "failed", "rank correlation")
_DECISIONS = ("kernel", "decision", "share of variance", "values: median time beside the best (measurements)")
_WAYS = ("problem", "decision", "times", "own way", "best way", "gain")
_DOT, _LINE = charts.COLOURS[0], charts.COLOURS[1]


def report_page(name: str, records: Iterable[Record]) -> str:
    """The page as HTML, with nothing loaded from elsewhere."""
    parts: list[Section | Chart | Grid] = []
    everything = list(records)
    for target, layers in histories(everything).items():
        summary, table, *others = _sections(target, layers, ways(everything, target))
        parts += [summary, table, *gains(layers), *curves(layers), *guesses(layers), *others]
    return html_page(f"Tuning log {name}", parts)


def report_sections(records: Iterable[Record]) -> list[Section]:
    """The tables alone."""
    everything = list(records)
    found = histories(everything).items()
    return [section for target, layers in found for section in _sections(target, layers, ways(everything, target))]


def _sections(target: str, layers: Sequence[History], others: Sequence[Ways]) -> list[Section]:
    tables = [_summary(target, layers, others), _layers(layers), _decisions(layers)]
    return [*tables, _ways(others)] if others else tables


# ---------------------------------------------------------------------- tables


def _summary(target: str, layers: Sequence[History], others: Sequence[Ways]) -> Section:
    found, speed, (before, after) = counts(layers), rate(layers), per_inference(layers, others)
    rows = [("target", target.replace(",", ", ")), ("kernels", str(len(layers))), ("trials", str(found.total()))]
    rows += [(f"… {status}", f"{count} ({count / found.total():.1%})") for status, count in found.most_common()]
    rows.append(("trials per second", "not told" if speed is None else f"{speed:.2g}"))
    if after:
        rows.append(
            ("kernels per inference", f"{seconds_text(before)} → {seconds_text(after)}: {before / after:.3f}x faster")
        )
    return Section("Summary", ("", "log"), tuple(rows))


def _layers(layers: Sequence[History]) -> Section:
    total = sum(layer.weight for layer in layers) or 1.0
    rows = tuple(_layer_row(layer, total) for layer in layers)
    return Section("Kernels, those that take the most time first", _LAYERS, rows, _LAYERS[1:])


def _layer_row(layer: History, total: float) -> tuple[str, ...]:
    times = (
        _if_known(layer.own, seconds_text),
        _if_known(layer.best, seconds_text),
        _if_known(layer.gain, "{:.2f}x".format),
    )
    tried = (str(len(layer.records)), str(len(layer.records) - len(layer.measured)))
    agreement = _if_known(layer.agreement(), "{:.2f}".format)
    calls = str(layer.calls) if layer.calls else "other way"
    return (kernel_text(layer.symbol), calls, f"{layer.weight / total:.1%}", *times, *tried, agreement)


def _decisions(layers: Sequence[History]) -> Section:
    rows = [_effect_row(layer, e) for layer in layers[:_DETAILED] for e in layer.effects()[:_EFFECTS]]
    title = "Decisions that go with the time, each by itself (the search tries what it believes in: no proof of causes)"
    return Section(title, _DECISIONS, tuple(rows), ("share of variance",))


def _effect_row(layer: History, effect: Effect) -> tuple[str, ...]:
    shown = [f"{_value(value)}: {ratio:.2f}x ({count})" for value, count, ratio in effect.values[:_VALUES]]
    more = len(effect.values) - len(shown)
    values = "; ".join([*shown, *([f"{more} more, slower"] if more else [])])
    return (kernel_text(layer.symbol), effect.name, f"{effect.share:.0%}", values)


def _value(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _ways(others: Sequence[Ways]) -> Section:
    title = "What passes decide: each way at the best of its kernels, where another one than the passes' own was faster"
    return Section(title, _WAYS, tuple(_way_row(w) for w in others), _WAYS[2:])


def _way_row(found: Ways) -> tuple[str, ...]:
    own, best = found.own, found.best
    ((name, _),) = best.decisions.values
    gain = "" if own is None else f"{seconds(own) / seconds(best):.2f}x"
    return (best.symbol, name, str(best.calls or 1), "" if own is None else _way(own), _way(best), gain)


def _way(record: Record) -> str:
    ((_, value),) = record.decisions.values
    return f"{_value(value)}: {seconds_text(seconds(record))}"


def _if_known(figure: float | None, text: Callable[[float], str]) -> str:
    return "" if figure is None else text(figure)


# ---------------------------------------------------------------------- charts


def curves(layers: Sequence[History]) -> list[Grid]:
    """A chart per layer: every trial as a dot, the best so far as a line, beside the library's own."""
    title = "Every trial's time as a dot, and the best so far as a line; dashed: the unit of time"
    found = [_curve(layer) for layer in layers[:_CURVES] if len(layer.measured) >= _LEAST_TRIALS]
    return [Grid(title, found)] if found else []


def _curve(layer: History) -> Chart:
    unit = layer.own or seconds(layer.measured[0])
    times = [r.seconds / unit for r in layer.measured if r.seconds is not None]
    low, high = min(min(times) * 0.9, 0.8), min(max(*times, 1.2), _HIGHEST)
    last = len(layer.records)
    figure = charts.figure(
        [_trials(layer, unit, high), _best_so_far(layer, unit, high), _grey([0, last], [1, 1])],
        _CURVE_HEIGHT,
        charts.axis("trials", range=[0, max(last, 2) * 1.02], tickformat="d"),
        charts.axis(f"time / {_unit_name(layer)}", range=[low, high * 1.02]),
    )
    gain = _if_known(layer.gain, ", {:.2f}x".format)
    return Chart(f"{kernel_text(layer.symbol)}: {seconds_text(layer.best or 0)}{gain}", figure)


def _unit_name(layer: History) -> str:
    return "library's own" if layer.own else "the first"


def _trials(layer: History, unit: float, high: float) -> Any:
    """A dot per measured trial; slower ones than ``high`` are at the upper edge."""
    times = {i: r.seconds for i, r in enumerate(layer.records, 1) if r.seconds is not None}
    return _dots(
        list(times),
        [min(t / unit, high) for t in times.values()],
        [f"trial {i}: {seconds_text(t)}, {t / unit:.2f} of {_unit_name(layer)}" for i, t in times.items()],
    )


def _best_so_far(layer: History, unit: float, high: float) -> Any:
    steps = layer.curve()
    return charts.graph_objects().Scatter(
        x=[*(number for number, _ in steps), len(layer.records)],
        y=[min(time / unit, high) for time in (*(t for _, t in steps), steps[-1][1])],
        mode="lines",
        line={"color": _LINE, "width": 2, "shape": "hv"},  # a staircase: better from its trial on
        hoverinfo="skip",
    )


def gains(layers: Sequence[History]) -> list[Chart]:
    """How many times faster than the library's own each layer became, as bars from 1, which is no faster."""
    known = [(layer, layer.gain) for layer in layers if layer.calls and layer.gain is not None]
    if not known:
        return []
    most = max(_LEAST_GAIN, *(gain for _, gain in known))
    figure = charts.figure(
        [_bars(known)],
        _BAR_HEIGHT * len(known) + 70,
        charts.axis("library's own time / best", range=[1, 1 + (most - 1) * 1.2]),
        {"type": "category", "autorange": "reversed"},  # the first above
    )
    return [Chart("How many times faster each kernel became, those that take the most time first", figure)]


def _bars(known: Sequence[tuple[History, float]]) -> Any:
    names = [kernel_text(layer.symbol) for layer, _ in known]
    times = [f"{_if_known(x.own, seconds_text)} → {_if_known(x.best, seconds_text)}: {gain:.2f}x" for x, gain in known]
    return charts.graph_objects().Bar(
        y=names,
        base=1,
        x=[gain - 1 for _, gain in known],
        orientation="h",
        text=[f"{gain:.2f}x" for _, gain in known],
        textposition="outside",
        cliponaxis=False,
        marker={"color": _DOT},
        hovertext=[charts.words(name, time) for name, time in zip(names, times, strict=True)],
        hoverinfo="text",
    )


def guesses(layers: Sequence[History]) -> list[Chart]:
    """Predicted against measured times of all layers, each beside its library's own."""
    pairs = [(p / x.own, t / x.own, x.symbol) for x in layers if x.own is not None for p, t in x.guesses()]
    if not pairs:
        return []
    low = min(min(p, t) for p, t, _ in pairs) / 1.1
    high = max(max(p, t) for p, t, _ in pairs) * 1.1
    names = [f"{kernel_text(symbol)}: predicted {p:.2f}, is {t:.2f}" for p, t, symbol in pairs]
    figure = charts.figure(
        [_grey([low, high], [low, high]), _dots([p for p, _, _ in pairs], [t for _, t, _ in pairs], names)],
        _GUESSES_HEIGHT,
        charts.log_axis("predicted time / library's own", low, high),
        charts.log_axis("measured / library's own", low, high),
    )
    error = math.exp(sum(abs(math.log(p / t)) for p, t, _ in pairs) / len(pairs)) - 1
    title = f"What the model said before measuring: {len(pairs)} schedules, off by {error:.0%} on average"
    return [Chart(title, figure)]


def _dots(x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> Any:
    return charts.graph_objects().Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": _DOT, "size": 5, "opacity": 0.75},
        hovertext=[charts.words(name) for name in names],
        hoverinfo="text",
        cliponaxis=False,
    )


def _grey(x: Sequence[float], y: Sequence[float]) -> Any:
    """A line to compare with."""
    line = {"color": charts.GREY, "width": 1.5, "dash": "dash"}
    return charts.graph_objects().Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip")
