"""The pages that ``bench`` and ``inspect`` write: well formed, complete, of their own, and all or nothing."""

from __future__ import annotations

import html.parser
import pathlib
import re
import xml.etree.ElementTree
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from polycomp.roofline.roofs import Roofs
from polycomp.runtime import read_module_file

Polycomp = Any
ROOFS = Roofs(threads=1, gflops=100.0, memory=10.0, cache=50.0, fork_ns=0.0, call_ns=50.0, memory_bytes=1 << 29)
_VOID = ("meta", "br", "img", "link", "input", "hr")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roofs of some machine, and short measurements."""
    monkeypatch.setattr("polycomp.roofline.page.measure_roofs", lambda target, threads: ROOFS)
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


def read_page(path: pathlib.Path) -> tuple[str, list[xml.etree.ElementTree.Element]]:
    """The text of a page that is well formed and needs nothing else, and its pictures."""
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert "http" not in page
    assert "<script" not in page
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker.text, [xml.etree.ElementTree.fromstring(p) for p in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


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
    for step in steps:
        assert text.count(step.symbol) >= 2  # in the chart and in the table
        assert all(source in text for source in step.sources)
    circles = [c for c in chart.iter("circle") if c.find("title") is not None]
    assert len(circles) == len(steps)
    assert {"peak 100 GFLOP/s", "memory 10 GB/s"} <= {t.text for t in chart.iter("text")}
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
    text, (picture,) = read_page(page)
    assert "expo<n>ential" in text
    assert picture.get("aria-label")


def test_inspect_shows_the_arena(polycomp: Polycomp, module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.html"
    assert polycomp("inspect", module, "--html", page).status == 0
    text, (picture,) = read_page(page)
    memory = read_module_file(module).manifest.metadata["memory"]
    boxes = [str(box.findtext("title")) for box in picture.iter("rect") if box.find("title") is not None]
    assert len(boxes) == len(memory) > 0
    for box, entry in zip(boxes, memory, strict=True):
        assert box.startswith(f"{entry['value']}: {entry['bytes']} bytes at {entry['offset']}, steps ")
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
