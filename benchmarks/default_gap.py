"""What searching would gain: the schedule library's own choices beside the best that are found around them.

For matrix products and convolutions taken from the models, each as a kernel of its own on data in the caches: every
decision of its schedule (register tile, row blocks, loop order, packing, prefetching, shared iterations) is tried with
other alternatives, the best is kept, and so on until none helps or --passes are over. Each candidate is proven like any
schedule, and its results are compared. What was found and the library's own are then timed again in alternating rounds:
the gap is the ratio of the medians, 1 where nothing better was found.

    python benchmarks/default_gap.py [--models DIR] [--only resnet50,bert] [--layers 40] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.table
from layers import Layer, choose_layers, model_layers
from measure import Array, geometric_mean, relative_error
from models import find_models

from polycomp.decisions import Decision, Decisions, Value
from polycomp.errors import PolycompError
from polycomp.native import NativeFunction, build
from polycomp.options import Options
from polycomp.runtime import Module
from polycomp.schedules.library.choose import build_schedule
from polycomp.target import host_target
from polycomp.tuner.choosers import distance

TRIAL_NANOSECONDS = 10_000_000
"""Time to spend on runs of a candidate while searching, and in each of the final rounds."""

MOST_RUNS = 200
ROUNDS = 9
NEARLY = 1.1
"""A gap below this is what the library aims for."""

LEAST_GAIN = 0.99
"""A candidate must be faster than this part of the best so far, lest noise be collected."""

TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer's figures: medians in nanoseconds of the library's own choices and of the best that were found."""

    model: str
    kernel: str
    shape: str
    flops: int
    default: float
    best: float
    changes: dict[str, Value]
    candidates: int
    refused: int

    @property
    def gap(self) -> float:
        """How many times longer the library's own schedule takes; at least 1."""
        return max(1.0, self.default / self.best)


class Candidate:
    """A layer with some decisions, compiled. Raises a PolycompError where they do not make a legal schedule."""

    def __init__(self, layer: Layer, decisions: Decisions, threads: int) -> None:
        kernel, target = layer.call.kernel, host_target()
        schedule = build_schedule("layer", kernel.inputs, kernel.outputs, kernel.ranges, target, decisions)
        self.decisions = decisions
        self.decided: Sequence[Decision] = schedule.decided
        function: NativeFunction = build(schedule, target, threads)
        self.module: Module = function.module
        self.flops: int = function.flops

    def nanoseconds(self, feeds: Mapping[str, Array]) -> float:
        """The median of some runs, after one that does not count."""
        self.module.run(feeds)
        first = self.module.run_profiled(feeds)[1][0].nanoseconds
        runs = max(3, min(MOST_RUNS, TRIAL_NANOSECONDS // max(1, first)))
        return statistics.median(self.module.run_profiled(feeds)[1][0].nanoseconds for _ in range(runs))


class Search:
    """The search around the library's choices for one layer."""

    def __init__(self, layer: Layer, arguments: argparse.Namespace) -> None:
        self.layer = layer
        self.arguments = arguments
        self.refused = 0
        self.times: dict[Decisions, float] = {}
        self.default = Candidate(layer, Decisions(), arguments.threads)
        random = np.random.default_rng(0)
        self.feeds = {s.name: random.standard_normal(s.shape).astype(s.dtype) for s in self.default.module.inputs}
        self.expected = list(self.default.module.run(self.feeds).values())
        self.best, self.best_time = self.default, self.default.nanoseconds(self.feeds)

    def run(self) -> Row:
        """Improve until nothing does, then measure both again."""
        for _ in range(self.arguments.passes):
            if not self._improve():
                break
        times: dict[Candidate, list[float]] = {self.default: [], self.best: []}
        for _ in range(ROUNDS):
            for candidate in times:
                times[candidate].append(candidate.nanoseconds(self.feeds))
        default, best = (statistics.median(times[c]) for c in (self.default, self.best))
        changes = dict(self.best.decisions.values) if best < default else {}
        symbol, shape = self.layer.call.symbol.rpartition("_")[0], self.layer.shape
        counts = (len(self.times), self.refused)
        return Row(self.layer.model, symbol, shape, self.default.flops, default, min(best, default), changes, *counts)

    def _improve(self) -> bool:
        """Try the alternatives of each decision in turn; whether one of them was better."""
        before = self.best
        for name in [d.name for d in self.best.decided]:
            decision = next((d for d in self.best.decided if d.name == name), None)
            for value in nearest(decision, self.arguments.alternatives) if decision else []:
                self._try(self.best.decisions.replace(name, value))
        return self.best is not before

    def _try(self, decisions: Decisions) -> None:
        if decisions in self.times:
            return
        self.times[decisions] = math.inf
        try:
            candidate = Candidate(self.layer, decisions, self.arguments.threads)
        except PolycompError:  # alternatives need not fit each other
            self.refused += 1
            return
        error = relative_error(list(candidate.module.run(self.feeds).values()), self.expected)
        if error > TOLERANCE:
            raise AssertionError(f"{self.layer.call.symbol} with {decisions.to_json()} is wrong by {error:.1e}")
        self.times[decisions] = time = candidate.nanoseconds(self.feeds)
        if time < LEAST_GAIN * self.best_time:
            self.best, self.best_time = candidate, time


def nearest(decision: Decision, count: int) -> list[Value]:
    """The ``count`` alternatives that are most like the one that was chosen."""
    others = [a for a in decision.alternatives if a != decision.value]
    return sorted(others, key=lambda other: distance(decision.value, other))[:count]


def show(rows: Sequence[Row], threads: int) -> None:
    """Print a table with the geometric mean of the gaps."""
    table = rich.table.Table(title=f"The library's own schedules beside the best found, {threads} threads")
    for head in ("model", "kernel", "shape"):
        table.add_column(head, overflow="fold")
    for head in ("own µs", "GFLOP/s", "best µs", "gap", "tried"):
        table.add_column(head, justify="right")
    table.add_column("what is better", overflow="fold")
    for row in sorted(rows, key=lambda row: -row.gap):
        table.add_row(*_cells(row))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    console.print(table, markup=False)
    near = sum(row.gap <= NEARLY for row in rows)
    print(f"geometric mean of {len(rows)} gaps: {geometric_mean(row.gap for row in rows):.3f}; {near} are within 10 %")


def _cells(row: Row) -> list[str]:
    changes = ", ".join(f"{name.partition('.')[2]}: {value}" for name, value in row.changes.items())
    times = [f"{row.default / 1e3:.1f}", f"{row.flops / row.default:.0f}", f"{row.best / 1e3:.1f}", f"{row.gap:.3f}"]
    return [row.model, row.kernel, row.shape, *times, f"{row.candidates}", changes]


def main() -> int:
    arguments = _arguments()
    options = Options(threads=arguments.threads)
    by_model = [model_layers(path, options) for path in find_models(arguments.models, arguments.only)]
    chosen = choose_layers(by_model, arguments.skip + arguments.layers)[arguments.skip :]
    progress = rich.console.Console(stderr=True)
    rows = []
    for layer in chosen:
        progress.print(f"{layer.model}: {layer.call.symbol} {layer.shape} ...", style="dim", markup=False)
        rows.append(Search(layer, arguments).run())
    if arguments.json:
        records: list[dict[str, Any]] = [dataclasses.asdict(row) | {"gap": row.gap} for row in rows]
        print(json.dumps({"layers": records, "geometric_mean": geometric_mean(row.gap for row in rows)}, indent=1))
    else:
        show(rows, arguments.threads)
    return 0 if rows else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", type=pathlib.Path, metavar="DIR", help="a folder with more ONNX files")
    add("--only", type=lambda text: text.split(","), default=[], metavar="NAME,...", help="models with such names")
    add("--layers", type=int, default=40, help="how many layers to search for (40)")
    add("--skip", type=int, default=0, help="leave out so many layers first, to search for all in parts")
    add("--threads", type=int, default=1, help="number of threads (1)")
    add("--passes", type=int, default=2, help="how often all decisions are gone through (2)")
    add("--alternatives", type=int, default=8, help="how many alternatives of a decision are tried (8)")
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
