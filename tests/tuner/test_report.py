"""What a report tells of a log: statistics on records whose times are known, the page, and the command."""

from __future__ import annotations

import html.parser
import pathlib
import random

import plotly.offline
import pytest

from polycomp.cli import main
from polycomp.decisions import Decisions
from polycomp.tuner.database import Database
from polycomp.tuner.history import History, counts, explained, histories, per_inference, rate
from polycomp.tuner.record import Record
from polycomp.tuner.report import curves, gains, guesses, report_page

CONV = "conv_0123456789"


def record(number: int, seconds: float | None, predicted: float | None = None, symbol: str = CONV) -> Record:
    """The first is the library's own; the value of the decision ``tile`` decides the time, ``order`` does not."""
    decisions = Decisions().replace("tile", 4 if (seconds or 0) < 2e-6 else 8).replace("order", number % 2 == 0)
    known = (decisions, "crash" if seconds is None else "ok", seconds, (), "", {})
    return Record(symbol, symbol, "target", *known, predicted, number == 0, 3, 100.0 + 0.5 * number)


TIMES = [2e-6, 1.5e-6, None, 3e-6, 1e-6, 1.25e-6, 4e-6, 2.5e-6]
LAYER = [record(i, t, None if i < 2 or t is None else t * 1.1) for i, t in enumerate(TIMES)]
OTHER = [record(i, t, symbol="pool_abcdefgh") for i, t in enumerate([1e-6, 1e-6])]


def test_a_history() -> None:
    history = History(tuple(LAYER))
    assert (history.own, history.best, history.gain, history.calls) == (2e-6, 1e-6, 2.0, 3)
    assert history.curve() == [(1, 2e-6), (2, 1.5e-6), (5, 1e-6)]
    assert history.agreement() == pytest.approx(1.0)
    backwards = [record(i, t, 1 / t) for i, t in enumerate([1e-6, 2e-6, 3e-6, 4e-6])]
    assert History(tuple(backwards)).agreement() == pytest.approx(-1.0)
    assert History(tuple(OTHER)).agreement() is None


def test_all_kernels_of_a_log() -> None:
    (layers,) = histories([*OTHER, *LAYER]).values()
    assert [x.symbol for x in layers] == [CONV, "pool_abcdefgh"]
    assert counts(layers) == {"ok": 9, "crash": 1}
    assert rate([History(tuple(LAYER))]) == pytest.approx(2.0)
    assert per_inference(layers) == pytest.approx((3 * 3e-6, 3 * 2e-6))


def test_the_decision_that_matters_is_found() -> None:
    (effect,) = History(tuple(LAYER)).effects()
    assert effect.name == "tile"
    assert 0.5 < effect.share < 1
    assert [(value, count) for value, count, _ in effect.values] == [(4, 3), (8, 4)]
    assert effect.values[0][2] == pytest.approx(1.25)


def test_chance_explains_nothing_on_average() -> None:
    chance = random.Random(0)
    shares = [explained([[chance.gauss(0, 1) for _ in range(10)] for _ in range(5)]) for _ in range(200)]
    assert sum(shares) / len(shares) < 0.05
    assert explained([[0.0, 0.0], [1.0, 1.0]]) == 1.0
    assert explained([[1.0], [2.0]]) == 0.0


def test_a_log_of_before_has_a_report(tmp_path: pathlib.Path) -> None:
    """Nothing is known of the library's own schedule, of predictions and of calls."""
    old = [Record(r.workload, r.symbol, r.target, r.decisions, r.status, r.seconds, (), "", {}) for r in LAYER]
    page = report_page("old.jsonl", old)
    assert r"time \u002f the first" in page  # as plotly writes it in JSON
    assert "not told" in page


def test_the_command_and_its_page(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, page = tmp_path / "tune.jsonl", tmp_path / "report.html"
    for each in (*LAYER, *OTHER):
        Database(log).append(each)
    with pytest.raises(SystemExit, match="0"):
        main(["tune", "report", str(log)])
    told = capsys.readouterr().out
    assert all(text in told for text in ("conv_012345", "2.00x", "9 (90.0%)", "1.500x faster", "tile"))
    with pytest.raises(SystemExit, match="0"):
        main(["tune", "report", str(log), "--html", str(page)])
    text = page.read_text().replace(plotly.offline.get_plotlyjs(), "")
    assert "http" not in text
    assert "<script src" not in text
    assert text.count('class="plotly-graph-div"') == 3  # gains, the curve of the one with more than two trials, guesses
    assert "pool_abcdef" in text
    html.parser.HTMLParser().feed(text)


def test_the_curve_of_a_layer() -> None:
    """Failed trials have no dot, but count; slow ones are at the upper edge, with their time in words."""
    (grid,) = curves(histories([*OTHER, *LAYER])["target"])
    (chart,) = grid.charts
    assert chart.title == "conv_012345: 1 µs, 2.00x"
    dots, best, own = chart.figure.data
    times = {1: 1, 2: 0.75, 4: 1.5, 5: 0.5, 6: 0.625, 7: 2, 8: 1.25}
    assert dict(zip(dots.x, dots.y, strict=True)) == pytest.approx(times)
    assert dots.hovertext[1] == "trial 2: 1.5 µs, 0.75 of library's own"
    assert list(zip(best.x, best.y, strict=True)) == [(1, 1), (2, 0.75), (5, 0.5), (8, 0.5)]
    assert best.line.shape == "hv"
    assert set(own.y) == {1}
    (slow,) = curves([History((*LAYER, record(8, 20e-6)))])[0].charts
    assert slow.figure.data[0].y[-1] == 3
    assert slow.figure.data[0].hovertext[-1] == "trial 9: 20 µs, 10.00 of library's own"
    assert curves([History(tuple(OTHER))]) == []


def test_the_gains_of_layers() -> None:
    (chart,) = gains(histories([*OTHER, *LAYER])["target"])
    (bars,) = chart.figure.data
    assert list(zip(bars.y, bars.x, bars.text, strict=True)) == [
        ("conv_012345", 1, "2.00x"),
        ("pool_abcdef", 0, "1.00x"),
    ]
    assert bars.base == 1
    assert bars.hovertext[0] == "conv_012345<br>2 µs → 1 µs: 2.00x"
    assert gains([History(tuple(LAYER[1:]))]) == []  # not known without the library's own


def test_predicted_against_measured() -> None:
    (chart,) = guesses(histories([*OTHER, *LAYER])["target"])
    assert chart.title == "What the model said before measuring: 5 schedules, off by 10% on average"
    diagonal, dots = chart.figure.data
    assert diagonal.x == diagonal.y
    assert list(dots.x) == pytest.approx([1.1 * y for y in dots.y])
    assert list(dots.y) == pytest.approx([1.5, 0.5, 0.625, 2, 1.25])
    assert dots.hovertext[0] == "conv_012345: predicted 1.65, is 1.50"
    assert guesses([History(tuple(OTHER))]) == []


def test_an_empty_log_is_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["tune", "report", str(tmp_path / "none.jsonl")])
    assert "has no measurements; 'polycomp tune MODEL --db" in capsys.readouterr().err
