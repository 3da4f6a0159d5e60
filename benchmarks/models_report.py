"""The figures of ``models.py``, and how they are shown."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence

import rich.console
import rich.table
from measure import geometric_mean

OURS = "polycomp"
REFERENCE = "onnxruntime"
"""Whose outputs count as right."""

MEGABYTE = 1e6
MILLISECOND = 1e-3
CONVOLUTIONAL, MATRIX = "convolutions", "matrix products"


@dataclasses.dataclass(frozen=True)
class Result:
    """One contestant on one model: median seconds of a run, relative error, peak bytes of its process."""

    seconds: float | None = None
    error: float | None = None
    peak_bytes: int | None = None
    failure: str = ""


@dataclasses.dataclass
class Row:
    """A model's figures: ``results`` by number of threads and contestant; ``cold`` and ``warm`` are seconds to compile.

    ``convolutions`` is the part of all floating-point operations that convolutions do. ``failure`` says why the rest
    is missing, ``notes`` what else went wrong.
    """

    model: str
    nodes: int = 0
    convolutions: float = 0.0
    results: dict[int, dict[str, Result]] = dataclasses.field(default_factory=dict)
    cold: float | None = None
    warm: float | None = None
    module_bytes: int | None = None
    failure: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def kind(self) -> str:
        """What most of the model's floating-point operations are."""
        return CONVOLUTIONAL if self.convolutions >= 0.5 else MATRIX

    def seconds(self, threads: int, name: str) -> float | None:
        """Median seconds of a contestant; None where it failed."""
        return self._result(threads, name).seconds

    def error(self, name: str) -> float | None:
        """A contestant's largest error with any number of threads."""
        return max((e for by in self.results.values() if (e := by.get(name, Result()).error) is not None), default=None)

    def peak(self, name: str) -> int | None:
        """A contestant's peak memory with the most threads."""
        return self._result(max(self.results, default=0), name).peak_bytes

    def ratio(self, threads: int, peer: str) -> float | None:
        """Our latency by that of ``peer``."""
        ours, theirs = self.seconds(threads, OURS), self.seconds(threads, peer)
        return ours / theirs if ours is not None and theirs is not None else None

    def best(self, threads: int, tolerance: float) -> str | None:
        """The fastest peer, among those whose outputs are right."""
        right = {
            name: result.seconds
            for name, result in self.results.get(threads, {}).items()
            if name != OURS and result.seconds is not None and (result.error or 0.0) <= tolerance
        }
        return min(right, key=right.__getitem__, default=None)

    def ratio_to_best(self, threads: int, tolerance: float) -> float | None:
        """Our latency by that of the fastest peer."""
        best = self.best(threads, tolerance)
        return None if best is None else self.ratio(threads, best)

    def is_wrong(self, tolerance: float) -> bool:
        """Whether polycomp failed, or computed something else than the reference."""
        failed = self.failure or any(by[OURS].failure for by in self.results.values())
        return bool(failed) or (self.error(OURS) or 0.0) > tolerance

    def problems(self, tolerance: float) -> list[str]:
        """What went wrong, a line each."""
        found = [self.failure] if self.failure else []
        found += self.notes
        for threads, results in self.results.items():
            found += [f"{name} with {threads} threads: {r.failure}" for name, r in results.items() if r.failure]
        names = dict.fromkeys(name for results in self.results.values() for name in results)
        wrong = {name: e for name in names if (e := self.error(name)) is not None and e > tolerance}
        return found + [f"{name} is wrong: its relative error is {e:.1e}" for name, e in wrong.items()]

    def _result(self, threads: int, name: str) -> Result:
        return self.results.get(threads, {}).get(name, Result())


def show(rows: Sequence[Row], peers: Sequence[str], threads: Sequence[int], tolerance: float) -> None:
    """Print a table of latencies per thread count, one of everything else, and what went wrong."""
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    for count in threads:
        console.print(_latencies(rows, peers, count, tolerance))
    console.print(_others(rows, [OURS, *peers]))
    for row in rows:
        for problem in row.problems(tolerance):
            console.print(f"{row.model}: {problem}", style="red", markup=False)


def _latencies(rows: Sequence[Row], peers: Sequence[str], threads: int, tolerance: float) -> rich.table.Table:
    title = f"Latency with {threads} thread{'s' * (threads > 1)} (a ratio below 1: polycomp is faster)"
    table = rich.table.Table(title=title)
    table.add_column("model", no_wrap=True)
    table.add_column("mostly")
    for head in ("polycomp ms", *(h for p in peers for h in (f"{p} ms", "ratio")), "best peer", "ratio to best"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.model, "" if row.failure else row.kind, *_latency_cells(row, peers, threads, tolerance))
    table.add_section()
    for title, some in _groups(rows):
        table.add_row(f"geometric mean of {len(some)}", title, *_means(some, peers, threads, tolerance))
    return table


def _latency_cells(row: Row, peers: Sequence[str], threads: int, tolerance: float) -> list[str]:
    cells = [_text(row.seconds(threads, OURS), ".2f", MILLISECOND)]
    for peer in peers:
        cells += [_text(row.seconds(threads, peer), ".2f", MILLISECOND), _text(row.ratio(threads, peer), ".3f")]
    return [*cells, row.best(threads, tolerance) or "none", _text(row.ratio_to_best(threads, tolerance), ".3f")]


def _groups(rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    """Rows by what they mostly are, and all of them."""
    measured = [row for row in rows if not row.failure]
    groups = [(kind, [row for row in measured if row.kind == kind]) for kind in (CONVOLUTIONAL, MATRIX)]
    return [*((kind, some) for kind, some in groups if some), ("all", measured)]


def _means(rows: Sequence[Row], peers: Sequence[str], threads: int, tolerance: float) -> list[str]:
    cells = [""]
    for peer in peers:
        cells += ["", _mean(rows, lambda row, peer=peer: row.ratio(threads, peer))]
    return [*cells, "", _mean(rows, lambda row: row.ratio_to_best(threads, tolerance))]


def _mean(rows: Iterable[Row], figure: Callable[[Row], float | None]) -> str:
    return _text(geometric_mean(value for row in rows if (value := figure(row)) is not None), ".3f")


def _others(rows: Sequence[Row], names: Sequence[str]) -> rich.table.Table:
    table = rich.table.Table(title=f"Error relative to {REFERENCE}, peak memory, and what compiling takes")
    table.add_column("model", no_wrap=True)
    heads = [f"error {name}" for name in names if name != REFERENCE] + [f"MB {name}" for name in names]
    for head in [*heads, "cold s", "warm s", "module MB"]:
        table.add_column(head, justify="right")
    for row in rows:
        cells = [_text(row.error(name), ".1e") for name in names if name != REFERENCE]
        cells += [_text(row.peak(name), ".0f", MEGABYTE) for name in names]
        compiled = (_text(row.cold, ".1f"), _text(row.warm, ".2f"), _text(row.module_bytes, ".1f", MEGABYTE))
        table.add_row(row.model, *cells, *compiled)
    return table


def _text(value: float | None, form: str, unit: float = 1.0) -> str:
    return "-" if value is None or math.isnan(value) else format(value / unit, form)


def as_json(rows: Sequence[Row], tolerance: float) -> str:
    """All figures, with the ratios of each model and their geometric means by kind of model."""
    models = [dataclasses.asdict(row) | {"kind": row.kind, "ratios": _ratios(row, tolerance)} for row in rows]
    means: dict[str, dict[int, float]] = {}
    for kind, some in _groups(rows):
        counts = dict.fromkeys(threads for row in some for threads in row.results)
        ratios = {t: [r for row in some if (r := row.ratio_to_best(t, tolerance)) is not None] for t in counts}
        means[kind] = {threads: geometric_mean(values) for threads, values in ratios.items() if values}
    return json.dumps({"models": models, "geometric_mean_of_ratios_to_best": means}, indent=1)


def _ratios(row: Row, tolerance: float) -> dict[int, dict[str, float | None]]:
    return {
        threads: {name: row.ratio(threads, name) for name in results if name != OURS}
        | {"best": row.ratio_to_best(threads, tolerance)}
        for threads, results in row.results.items()
    }
