"""The roofline page: the chart, the roofs, and every kernel with what keeps it from being faster."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from polycomp.driver.report import Section, html_page
from polycomp.options import Options
from polycomp.roofline.chart import roofline_chart
from polycomp.roofline.points import Feeds, measured_points, model_traits
from polycomp.roofline.reasons import Point, efficiency, reasons
from polycomp.roofline.roofs import Roofs, measure_roofs
from polycomp.runtime import Module
from polycomp.target import host_target

_HEADINGS = (
    "rank",
    "µs",
    "share",
    "GFLOP/s",
    "GB/s",
    "FLOPs/byte",
    "of its roof",
    "why",
    "kernel",
    "nodes of the model",
)


def make_page(module: Module, feeds: Feeds, options: Options, model: pathlib.Path | None) -> str:
    """Measure this machine and the module's kernels, and write the page.

    ``model`` is the ONNX file that ``module`` was compiled from with ``options``, where it is there: what a kernel's
    loops are like is learned from it.
    """
    traits = {} if model is None else model_traits(model, options, module, feeds)
    points = measured_points(module, feeds, traits)
    return roofline_page(module.manifest.name, points, measure_roofs(host_target(), module.threads))


def roofline_page(name: str, points: Sequence[Point], roofs: Roofs) -> str:
    """The page as HTML, with nothing loaded from elsewhere."""
    sections = (_kernels(points, roofs), _machine(roofs))
    return html_page(f"Roofline of {name}", [roofline_chart(points, roofs), *sections])


def _kernels(points: Sequence[Point], roofs: Roofs) -> Section:
    total = sum(p.nanoseconds for p in points)
    slowest = sorted(points, key=lambda p: -p.nanoseconds)
    rows = tuple((str(rank), *_row(point, roofs, total)) for rank, point in enumerate(slowest, 1))
    title = f"Kernel calls, the slowest first: {total / 1e6:.3g} ms in all, medians"
    return Section(title, _HEADINGS, rows, _HEADINGS[:7])


def _row(point: Point, roofs: Roofs, total: float) -> tuple[str, ...]:
    figures = (f"{point.nanoseconds / 1e3:.1f}", f"{point.nanoseconds / total:.1%}", f"{point.gflops:.1f}")
    more = (f"{point.gbps:.1f}", f"{point.intensity:.3g}", f"{efficiency(point, roofs):.0%}")
    return (*figures, *more, "; ".join(reasons(point, roofs)), point.symbol, ", ".join(point.sources))


def _machine(roofs: Roofs) -> Section:
    rows = (
        ("threads", str(roofs.threads)),
        ("fused multiply-adds in float32", f"{roofs.gflops:.0f} GFLOP/s"),
        (f"reading {roofs.memory_bytes >> 20} MiB from memory", f"{roofs.memory:.1f} GB/s"),
        ("reading from the second-level cache", f"{roofs.cache:.0f} GB/s"),
        ("starting and joining a parallel loop", f"{roofs.fork_ns / 1e3:.2g} µs"),
        ("calling a kernel", f"{roofs.call_ns / 1e3:.2g} µs"),
    )
    return Section("The roofs, measured with kernels of polycomp's own", ("", "this machine"), rows, ("this machine",))
