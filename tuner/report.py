"""A tuning log as tables and pictures: for the terminal, and as a page of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

from polycomp.driver import svg
from polycomp.driver.axes import Axis, grid
from polycomp.driver.report import Section, html_page
from polycomp.driver.words import kernel_text, seconds_text
from polycomp.tuner.history import Effect, History, counts, histories, per_inference, rate, seconds
from polycomp.tuner.record import Record

_PICTURES = 12  # layers with a picture of their own: those that take the most time
_LEAST_TRIALS = 3  # measured ones, to make a curve
_DETAILED = 6  # layers whose decisions are told
_EFFECTS = 4  # decisions of each
_VALUES = 6  # values of each
_WIDTH, _HEIGHT = 300, 200
_WIDE, _HIGH = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 34, 42
_LAYERS = ("kernel", "calls", "share", "library's own", "best", "gain", "trials", "failed", "rank correlation")
_DECISIONS = ("kernel", "decision", "share of variance", "values: median time beside the best (measurements)")
_DOT, _LINE = svg.COLOURS[0], svg.COLOURS[1]


def report_page(name: str, records: Iterable[Record]) -> str:
    """The page as HTML, with nothing loaded from elsewhere."""
    parts: list[Section | str] = []
    for target, layers in histories(records).items():
        summary, table, decisions = _sections(target, layers)
        parts += [summary, table, _curves(layers), *_guesses(layers), decisions]
    return html_page(f"Tuning log {name}", parts)


def report_sections(records: Iterable[Record]) -> list[Section]:
    """The tables alone."""
    return [section for target, layers in histories(records).items() for section in _sections(target, layers)]


def _sections(target: str, layers: Sequence[History]) -> tuple[Section, Section, Section]:
    return _summary(target, layers), _layers(layers), _decisions(layers)


# ---------------------------------------------------------------------- tables


def _summary(target: str, layers: Sequence[History]) -> Section:
    found, speed, (before, after) = counts(layers), rate(layers), per_inference(layers)
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
    return (kernel_text(layer.symbol), str(layer.calls), f"{layer.weight / total:.1%}", *times, *tried, agreement)


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


def _if_known(figure: float | None, text: Callable[[float], str]) -> str:
    return "" if figure is None else text(figure)


# ---------------------------------------------------------------------- pictures


def _curves(layers: Sequence[History]) -> str:
    """A picture per layer: every trial as a dot, the best so far as a line, beside the library's own."""
    pictures = [_curve(layer) for layer in layers[:_PICTURES] if len(layer.measured) >= _LEAST_TRIALS]
    return f'<div class="grid">{"".join(pictures)}</div>'


def _curve(layer: History) -> str:
    unit = layer.own or seconds(layer.measured[0])
    dots = [(i, r.seconds / unit) for i, r in enumerate(layer.records, 1) if r.seconds is not None]
    x = Axis(0, max(len(layer.records), 2), _LEFT, _WIDTH - _RIGHT)
    low, high = min(t for _, t in dots), max(t for _, t in dots)
    y = Axis(min(low * 0.9, 0.8), min(max(high, 1.2), 3.0), _HEIGHT - _BOTTOM, _TOP)
    parts = grid(x, y, "trials", "time / library's own" if layer.own else "time / the first")
    parts += [_dot(x.at(i), y.at(min(t, y.high)), 1.8, "") for i, t in dots]
    steps = [(number, time / unit) for number, time in layer.curve()]
    parts.append(_staircase([*steps, (len(layer.records), steps[-1][1])], x, y))
    words = f"{kernel_text(layer.symbol)}: {seconds_text(layer.best or 0)}" + _if_known(layer.gain, ", {:.2f}x".format)
    parts.append(svg.label(_LEFT - 40, 12, words, font_weight=600))
    return svg.picture(_WIDTH, _HEIGHT, f"Trials of {layer.symbol}", parts)


def _staircase(steps: Sequence[tuple[int, float]], x: Axis, y: Axis) -> str:
    corners = [(x.at(steps[0][0]), y.at(min(steps[0][1], y.high)))]
    for (_, before), (number, after) in itertools.pairwise(steps):
        corners += [(x.at(number), y.at(min(t, y.high))) for t in (before, after)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return svg.element("polyline", points=points, fill="none", stroke=_LINE, stroke_width=2)


def _guesses(layers: Sequence[History]) -> list[str]:
    """Predicted against measured times of all layers, each beside its library's own."""
    pairs = [(p / x.own, t / x.own, x.symbol) for x in layers if x.own is not None for p, t in x.guesses()]
    if not pairs:
        return []
    low = min(min(p, t) for p, t, _ in pairs) / 1.1
    high = max(max(p, t) for p, t, _ in pairs) * 1.1
    x = Axis(low, high, _LEFT, _WIDE - _RIGHT, logarithmic=True)
    y = Axis(low, high, _HIGH - _BOTTOM, _TOP, logarithmic=True)
    parts = grid(x, y, "predicted time / library's own", "measured / library's own")
    parts.append(svg.line(x.begin, y.begin, x.end, y.end))
    parts += [
        _dot(x.at(p), y.at(t), 2.5, f"{kernel_text(symbol)}: predicted {p:.2f}, is {t:.2f}") for p, t, symbol in pairs
    ]
    error = math.exp(sum(abs(math.log(p / t)) for p, t, _ in pairs) / len(pairs)) - 1
    words = f"What the model said before measuring: {len(pairs)} schedules, off by {error:.0%} on average"
    parts.append(svg.label(4, 12, words, font_weight=600))
    return [svg.picture(_WIDE, _HIGH, "Predicted and measured times", parts)]


def _dot(x: float, y: float, radius: float, words: str) -> str:
    content = svg.title(words) if words else ""
    return svg.element("circle", content, cx=x, cy=y, r=radius, fill=_DOT, fill_opacity=0.6)
