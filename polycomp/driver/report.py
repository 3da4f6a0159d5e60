"""What is inside a module, as tables: for the terminal, and as a page."""

from __future__ import annotations

import dataclasses
import html
import importlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polycomp.driver import charts
from polycomp.driver.charts import Chart, Grid
from polycomp.runtime import Manifest, StepSpec, TensorSpec
from polycomp.runtime.dims import Dimension, to_text

if TYPE_CHECKING:
    from polycomp.runtime.cuda.plan import DevicePlan


@dataclasses.dataclass(frozen=True)
class Section:
    """A table. The columns called ``numeric`` are aligned to the right."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[str, ...] = ()


def report(manifest: Manifest) -> tuple[Section, ...]:
    """The sections on a module: summary, operators, nodes, kernels, for a GPU what these take of it, and memory."""
    details = manifest.metadata
    return (
        _summary(manifest),
        _operators(details.get("operators", {})),
        _nodes(details.get("nodes", ())),
        _kernels(manifest.steps),
        *([] if manifest.device is None else [_launches(manifest.device, details.get("resources", {}))]),
        _memory(details.get("memory", ())),
    )


def html_page(title: str, parts: Sequence[Section | Chart | Grid]) -> str:
    """A page of its own, with nothing loaded from elsewhere, of tables and charts. Where it has charts, it holds
    plotly's code, which is some megabytes."""
    numbers = itertools.count(1)
    body = "\n".join(_html_part(part, numbers) for part in parts)
    script = "" if all(isinstance(part, Section) for part in parts) else charts.script()
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>{script}</head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:14px/1.4 system-ui,sans-serif;margin:min(2em,4vw);color:#222;background:#fff}"
    "h1{font-size:1.5em}h2{font-size:1em}"
    "table{border-collapse:collapse}th,td{padding:.2em .8em;border-bottom:1px solid #8884;text-align:left;"
    "vertical-align:top}.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}"
    ".grid{display:grid;align-items:end;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:0 1em}"
    "figure{margin:1em 0;max-width:1100px;min-width:0}figcaption{font-weight:600}"
    # plotly knows no colour that depends on the page's; the text in its boxes at the pointer has a ground of its own.
    ".main-svg text:not(.hoverlayer *){fill:currentColor!important}"
    "summary{cursor:pointer;font-weight:600;margin-top:1.5em}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}}"
)


def _summary(manifest: Manifest) -> Section:
    sizes = ", ".join(f"{s.name} ({s.minimum}..{s.maximum or ''})" for s in manifest.symbols)
    rows = [
        ("made for", f"{manifest.arch} {' '.join(manifest.features)}"),
        ("inputs", _tensors(manifest.inputs)),
        ("outputs", _tensors(manifest.outputs)),
        ("open sizes", sizes or "none"),
        ("steps", f"{len(manifest.steps)} calls of {len({s.symbol for s in manifest.steps})} kernels"),
        ("floating-point operations", number_text(manifest.metadata.get("flops", 0))),
        ("weights", f"{manifest.weight_bytes:,} bytes"),
        ("arena", f"{number_text(manifest.arena_bytes)} bytes"),
    ]
    if precision := manifest.metadata.get("precision", ""):
        rows.insert(1, ("precision", f"{precision} where that is safe"))
    if manifest.device is not None:
        rows.insert(1, ("code", _code(manifest.device)))
    return Section(manifest.name, ("", "module"), tuple(rows))


def _code(plan: DevicePlan) -> str:
    """The bytes of each architecture's."""
    sizes = {arch: sum(c.bytes for c in plan.code if c.arch == arch) for arch in plan.architectures}
    return ", ".join(f"{arch} {size:,} bytes" for arch, size in sizes.items())


def _tensors(specs: Sequence[TensorSpec]) -> str:
    return "; ".join(map(repr, specs))


def _operators(counts: Mapping[str, int]) -> Section:
    rows = tuple((op, str(count)) for op, count in counts.items())
    return Section("Operators of the model", ("operator", "nodes"), rows, ("nodes",))


def _nodes(nodes: Sequence[Mapping[str, Any]]) -> Section:
    rows = tuple((n["name"], n["op"], n["type"], n["kernel"] or "none: shares memory") for n in nodes)
    return Section("Nodes after all passes", ("node", "operator", "result", "kernel"), rows)


def _kernels(steps: Sequence[StepSpec]) -> Section:
    by_symbol: dict[str, list[StepSpec]] = {}
    for step in steps:
        by_symbol.setdefault(step.symbol, []).append(step)
    rows = tuple(_kernel_row(symbol, calls) for symbol, calls in by_symbol.items())
    headings = ("kernel", "calls", "FLOPs", "bytes", "model nodes")
    return Section("Kernels", headings, rows, ("calls", "FLOPs", "bytes"))


def _kernel_row(symbol: str, calls: Sequence[StepSpec]) -> tuple[str, ...]:
    sources = ", ".join(s for call in calls for s in call.sources)
    return (symbol, str(len(calls)), _total([c.flops for c in calls]), _total([c.bytes for c in calls]), sources)


def _launches(plan: DevicePlan, resources: Mapping[str, Any]) -> Section:
    # What modules for a CPU do without is not imported for them.
    made: Section = importlib.import_module("polycomp.driver.launches").launches(plan, resources)
    return made


def _memory(tensors: Sequence[Mapping[str, Any]]) -> Section:
    ordered = sorted(tensors, key=lambda t: (t["steps"], t["value"]))
    rows = tuple(
        (t["value"], number_text(t["bytes"]), number_text(t["offset"]), f"{t['steps'][0]}-{t['steps'][1]}")
        for t in ordered
    )
    return Section(
        "Memory plan of the arena", ("value", "bytes", "offset", "alive in steps"), rows, ("bytes", "offset")
    )


def _total(dims: Sequence[Dimension]) -> str:
    """The sum of the known ones, and the others as often as they occur."""
    known = sum(d for d in dims if isinstance(d, int))
    counts = Counter(number_text(d) for d in dims if not isinstance(d, int))
    terms = [f"{count} * ({text})" if count > 1 else text for text, count in counts.items()]
    return " + ".join([number_text(known), *terms] if known or not terms else terms)


def number_text(dim: Dimension) -> str:
    return f"{dim:,}" if isinstance(dim, int) else str(to_text(dim))


def _html_part(part: Section | Chart | Grid, numbers: Iterator[int]) -> str:
    if isinstance(part, Section):
        return _html_section(part)
    if isinstance(part, Chart):
        return charts.element(part, f"chart-{next(numbers)}")
    inside = "".join(_html_part(chart, numbers) for chart in part.charts)
    return f'<h2>{html.escape(part.title)}</h2><div class="grid">{inside}</div>'


def _html_section(section: Section) -> str:
    head = "".join(f"<th{_class(section, h)}>{html.escape(h)}</th>" for h in section.headings)
    rows = "\n".join(_html_row(section, row) for row in section.rows)
    title = f"{section.title} ({len(section.rows)})"
    table = f'<div class="scroll"><table><tr>{head}</tr>\n{rows}</table></div>'
    return f"<details open><summary>{html.escape(title)}</summary>{table}</details>"


def _html_row(section: Section, row: Sequence[str]) -> str:
    cells = zip(section.headings, row, strict=True)
    return f"<tr>{''.join(f'<td{_class(section, h)}>{html.escape(c)}</td>' for h, c in cells)}</tr>"


def _class(section: Section, heading: str) -> str:
    return ' class="number"' if heading in section.numeric else ""
