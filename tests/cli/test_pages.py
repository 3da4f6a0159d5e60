"""The pages that ``bench`` and ``inspect`` write: well formed, complete, of their own, and all or nothing."""

from __future__ import annotations

import dataclasses
import html
import html.parser
import json
import pathlib
import re
import sys
from typing import Any

import onnx
import plotly.offline
import pytest
from onnx import TensorProto, helper

from polycomp.driver.report import Section, html_page
from polycomp.roofline.chart import roofline_chart
from polycomp.roofline.reasons import Point
from polycomp.roofline.roofs import Roofs
from polycomp.runtime import read_module_file

Polycomp = Any
ROOFS = Roofs(threads=1, gflops=100.0, memory=10.0, cache=50.0, fork_ns=0.0, call_ns=50.0, memory_bytes=1 << 29)
_VOID = ("meta", "br", "img", "link", "input", "hr")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roofs of some machine, and short measurements; a call costs so much that every kernel is small beside it."""
    roofs = dataclasses.replace(ROOFS, call_ns=1e12)
    monkeypatch.setattr("polycomp.roofline.page.measure_roofs", lambda target, threads: roofs)
    monkeypatch.setattr("polycomp.driver.bench._ROUND_SECONDS", 0.0)


class _Checker(html.parser.HTMLParser):
    """Raises where an element is not closed by its own end; keeps all text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@dataclasses.dataclass(frozen=True)
class Figure:
    """What a page tells plotly to draw."""

    traces: list[dict[str, Any]]
    layout: dict[str, Any]

    def hover_texts(self) -> list[str]:
        """Without the breaks of lines."""
        return [as_plain(text) for trace in self.traces for text in trace.get("hovertext", ())]

    def labels(self) -> set[str]:
        return {as_plain(text) for trace in self.traces for text in trace.get("text", ()) if text}


def as_plain(text: str) -> str:
    return html.unescape(text.replace("<br>", " "))


def read_page(path: pathlib.Path) -> tuple[str, list[Figure]]:
    """The text of a page that is well formed and needs nothing else, and what its charts are drawn from."""
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    own, library = page.replace(plotly.offline.get_plotlyjs(), ""), plotly.offline.get_plotlyjs()
    assert len(own) == len(page) - len(library)  # it is there, once
    assert all(outside not in own for outside in ("http", "<script src", "<link", "@import", "url("))
    checker = _Checker()
    checker.feed(own)
    checker.close()
    assert checker.open == []
    return checker.text, _figures(own)


def _figures(page: str) -> list[Figure]:
    """From the calls ``Plotly.newPlot("name", traces, layout, ...)``; every name has its element."""
    decoder, found = json.JSONDecoder(), []
    for number, call in enumerate(re.finditer(r'Plotly\.newPlot\(\s*"(.*?)",\s*', page), 1):
        assert call[1] == f"chart-{number}"
        assert page.count(f'<div id="{call[1]}"') == 1
        traces, end = decoder.raw_decode(page, call.end())
        layout, _ = decoder.raw_decode(page, page.index("{", end))
        found.append(Figure(traces, layout))
    return found


@pytest.mark.parametrize("kind", ["model", "module"])
def test_bench_writes_a_roofline(
    polycomp: Polycomp, request: pytest.FixtureRequest, tmp_path: pathlib.Path, kind: str
) -> None:
    file = request.getfixturevalue(kind)
    page = tmp_path / "roofline.html"
    done = polycomp("bench", file, "--threads", "1", "--html", page)
    assert done.status == 0, done.err
    assert done.err.endswith(f"wrote {page}\n")
    text, (chart,) = read_page(page)
    manifest = read_module_file(request.getfixturevalue("module")).manifest
    steps = manifest.steps
    texts = chart.hover_texts()
    assert len(texts) == len(steps)
    for step in steps:
        (shown,) = [t for t in texts if t.startswith(f"{step.symbol} ({', '.join(step.sources)})")]
        assert all(part in shown for part in ("µs", "% of the time", "GFLOP/s", "GB/s", "% of its roof", "too small"))
        assert step.symbol in text
        assert all(source in text for source in step.sources)
    assert {"peak 100 GFLOP/s", "memory 10 GB/s", "second-level cache 50 GB/s"} <= chart.labels()
    assert "too small" in text


def test_json_and_a_page(polycomp: Polycomp, module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = polycomp("bench", module, "--json", "--html", tmp_path / "page.html")
    assert (done.status, done.out.count("\n"), (tmp_path / "page.html").exists()) == (0, 1, True)


def open_sizes(folder: pathlib.Path) -> pathlib.Path:
    """``<y & z> = transpose(exp(x))`` for an ``x`` whose sizes are open."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], "expo<n>ential"),
        helper.make_node("Transpose", ["e"], ["<y & z>"], "turn", perm=[1, 0]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "columns"])
    y = helper.make_tensor_value_info("<y & z>", TensorProto.FLOAT, ["columns", "rows"])
    path = folder / "open.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "a<b", [x], [y])), path)
    return path


@pytest.mark.parametrize("command", ["bench", "inspect"])
def test_open_sizes_and_odd_names(polycomp: Polycomp, tmp_path: pathlib.Path, command: str) -> None:
    page = tmp_path / "page.html"
    shape = ["--shape", "x=3,5"] if command == "bench" else []
    assert polycomp(command, open_sizes(tmp_path), *shape, "--html", page).status == 0
    text, (chart,) = read_page(page)
    assert "expo<n>ential" in text
    shown = "".join(text for trace in chart.traces for text in trace.get("hovertext", ()))
    if command == "bench":  # what plotly reads is HTML: names are whole on the screen only where they are escaped
        assert "expo&lt;n&gt;ential" in shown
    else:
        assert not shown  # one kernel from the input to the output keeps nothing in the arena


def test_inspect_shows_the_arena(polycomp: Polycomp, module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.html"
    assert polycomp("inspect", module, "--html", page).status == 0
    text, (chart,) = read_page(page)
    (boxes,) = chart.traces
    manifest = read_module_file(module).manifest
    memory = manifest.metadata["memory"]
    assert len(chart.hover_texts()) == len(memory) > 0
    for i, entry in enumerate(memory):
        first, last = entry["steps"]
        told = f"{entry['value']} {entry['bytes']} bytes at {entry['offset']} steps {first} to {last}"
        assert chart.hover_texts()[i] == told
        assert (boxes["base"][i], boxes["y"][i]) == (entry["offset"], entry["bytes"])
        assert boxes["x"][i] - boxes["width"][i] / 2 == first - 0.5
        assert boxes["x"][i] + boxes["width"][i] / 2 == last + 0.5
    assert chart.layout["yaxis"]["range"] == [0, manifest.arena_bytes]
    assert "Memory plan of the arena" in text


@pytest.mark.parametrize("command", ["bench", "inspect"])
@pytest.mark.parametrize("page", ["missing/page.html", "."])
def test_a_page_that_cannot_be_written(
    polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path, command: str, page: str
) -> None:
    before = sorted(tmp_path.iterdir())
    done = polycomp(command, model, "--html", tmp_path / page)
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(f"polycomp: error: cannot write {tmp_path}")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", [("bench",), ("inspect",), ("tune", "report")])
def test_without_plotly_nothing_is_begun(
    polycomp: Polycomp, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """That the model or log does not exist either would be told next."""
    monkeypatch.setitem(sys.modules, "plotly", None)
    done = polycomp(*command, tmp_path / "missing", "--html", tmp_path / "page.html")
    message = "polycomp: error: --html needs plotly, which is not installed; pip install polycomp[html]\n"
    assert (done.status, done.out, done.err) == (1, "", message)
    assert list(tmp_path.iterdir()) == []


def test_without_plotly_tables_are_shown(
    polycomp: Polycomp, module: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    done = polycomp("inspect", module)
    assert done.status == 0
    assert "Memory plan of the arena" in done.out


def points(*times: float) -> list[Point]:
    """Calls of kernels that take ``times`` in nanoseconds, each of a family of its own; the first has no arithmetic."""
    return [Point(f"family{i}_0123", (f"node{i}",), t, 0 if i == 0 else 10**i * 100, 100) for i, t in enumerate(times)]


def test_where_kernels_and_roofs_are_in_the_roofline() -> None:
    figure = roofline_chart(points(1000.0, 4000.0, 5000.0), ROOFS).figure
    circles = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(circles) == ["family2", "family1", "family0"]  # those that take the most time first
    assert (circles["family2"].x[0], circles["family2"].y[0]) == (100, 2)  # FLOPs per byte, GFLOP/s
    least = 0.1  # a power of ten, a tenth at least of the ridge at 100 / 50
    assert (circles["family0"].x[0], circles["family0"].y[0]) == (least, pytest.approx(0.1 * least))
    areas = [circles[name].marker.size[0] ** 2 for name in circles]
    assert areas[0] / areas[1] == pytest.approx(5 / 4)
    cache, memory, peak = (trace for trace in figure.data if trace.mode == "lines+text")
    for roof, bandwidth in ((cache, 50), (memory, 10)):
        assert [y / x for x, y in zip(roof.x, roof.y, strict=True)] == pytest.approx([bandwidth] * 3)
        assert (roof.x[-1], roof.y[-1]) == pytest.approx((100 / bandwidth, 100))
    assert set(peak.y) == {100}
    (numbers,) = (trace for trace in figure.data if trace.mode == "text")
    assert dict(zip(numbers.text, numbers.x, strict=True)) == {"<b>1</b>": 100, "<b>2</b>": 10, "<b>3</b>": least}


def test_a_roofline_of_many_families_and_of_equal_calls() -> None:
    figure = roofline_chart([*points(*[1000.0] * 12), *points(*[1000.0] * 12)], ROOFS).figure
    names = [trace.name for trace in figure.data if trace.mode == "markers"]
    assert names == [*(f"family{i}" for i in range(9)), "others"]
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers") == 24
    (numbers,) = (trace for trace in figure.data if trace.mode == "text")
    assert len(set(zip(numbers.x, numbers.y, strict=True))) == len(numbers.text)  # no two at one place


def test_a_page_without_charts_holds_tables_alone() -> None:
    page = html_page("a <title>", [Section("some", ("one",), (("<1>",),))])
    assert "<script" not in page
    assert all(text in page for text in ("a &lt;title&gt;", "&lt;1&gt;"))
