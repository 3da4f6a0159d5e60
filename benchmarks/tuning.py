"""How good searches are: best-so-far after 16, 64 and 256 trials, from a deliberately naive schedule.

On layers taken from the models, three searches start from the smallest of everything (tiles of one vector, no packing,
nothing asked for ahead): at random, evolutionary, and evolutionary with a learned model, which has the experience of
the layers before. The first figures are how many times longer than the best that any of them ever found (or the
library's own choice, where that is better) their best takes. A schedule that one of them has measured is not measured
again for another, so they meet the same times; what is measured goes to --log, from which a later run goes on.

With --matmul: a product of 512 x 512 x 512 with a constant matrix, from the naive schedule, beside the machine's peak.

    python benchmarks/tuning.py [--layers 12] [--trials 64] [--long 256] [--log tuning.jsonl] [--threads 1] [--json]
    python benchmarks/tuning.py --matmul [--trials 64] [--threads 2]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import rich.console
import rich.table
from gemm import matmul_model
from layers import choose_layers, model_layers
from measure import geometric_mean, interleaved
from models import find_models

from polycomp.decisions import Decisions
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.driver.work import flops, magnitude
from polycomp.native import build
from polycomp.options import Options
from polycomp.roofline.roofs import fma_kernel
from polycomp.runtime import load_parts
from polycomp.schedules import Schedule
from polycomp.target import host_target
from polycomp.tuner.bench import feeds_of, runner
from polycomp.tuner.builder import build_candidate
from polycomp.tuner.database import Database
from polycomp.tuner.evolution import EvolutionarySearch
from polycomp.tuner.measurer import Measurer, Outcome, Trial
from polycomp.tuner.model import Experience, make_model
from polycomp.tuner.pool import LocalPool
from polycomp.tuner.search import RandomSearch, Search
from polycomp.tuner.session import Budget, Layer, Session, record_of
from polycomp.tuner.space import Point, Space
from polycomp.tuner.status import Status
from polycomp.tuner.workload import Workload, workload_of_call

MakeSearch = Callable[[Space], Search]
MARKS = (16, 64, 256)
NEAR = 1.05
"""A goal: to be so near to the best that is known."""
_SIZE = 512  # of the product
_ROUNDS = 40  # of what was found beside the peak
_TURNS = 40  # of what was found of a layer


def searches(seed: int) -> dict[str, MakeSearch]:
    """The searches by name; the learned models of all layers share their experience."""
    experience = Experience()
    return {
        "random": lambda space: RandomSearch(space, [space.naive()], random.Random(seed)),
        "evolutionary": lambda space: EvolutionarySearch(space, [space.naive()], random.Random(seed)),
        "learned": lambda space: EvolutionarySearch(
            space, [space.naive()], random.Random(seed), make_model(experience)
        ),
    }


class Remembering(Measurer):
    """Measures with ``pool`` what ``database`` and this one do not know; ``measured`` counts the former."""

    def __init__(self, pool: Measurer, database: Database | None) -> None:
        self.pool, self.database = pool, database
        self.known: dict[tuple[str, Decisions], Outcome] = {}
        self.waiting: list[Outcome] = []
        self.under_way: dict[int, Trial] = {}
        self.measured = 0
        for r in database.records() if database is not None else ():
            times = r.seconds, r.samples, r.error, r.library
            self.known[r.workload, r.decisions] = Outcome(0, Status(r.status), *times)

    @property
    def capacity(self) -> int:
        return self.pool.capacity

    def submit(self, trial: Trial) -> None:
        known = self.known.get((trial.workload.key, trial.decisions))
        if known is not None:
            self.waiting.append(dataclasses.replace(known, number=trial.number))
        else:
            self.measured += 1
            self.under_way[trial.number] = trial
            self.pool.submit(trial)

    def collect(self) -> Sequence[Outcome]:
        found, self.waiting = self.waiting, []
        if found:
            return found
        outcomes = self.pool.collect()
        for outcome in outcomes:
            trial = self.under_way.pop(outcome.number)
            self.known[trial.workload.key, trial.decisions] = outcome
            if self.database is not None:
                self.database.append(record_of(trial, outcome))
        return outcomes

    def thinking(self) -> contextlib.AbstractContextManager[None]:
        return self.pool.thinking()

    def close(self) -> None:
        self.pool.close()


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer's figures: seconds of the library's own choice and of the best that is known, and of each search's best
    after each number of trials. ``rate`` is in trials per second, of those that were measured."""

    model: str
    kernel: str
    shape: str
    own: float
    best: float
    curves: dict[str, dict[int, float]]
    measured: int
    rate: float


def tune_layer(
    names: tuple[str, str, str],
    workload: Workload,
    competitors: Mapping[str, MakeSearch],
    arguments: argparse.Namespace,
) -> Row:
    """All searches on one layer."""
    database = Database(arguments.log) if arguments.log else None
    found: dict[str, dict[int, Point]] = {}
    begin = time.monotonic()
    with LocalPool(workload.target.cores) as pool:
        measurer = Remembering(pool, database)
        for name, make_search in competitors.items():
            trials = arguments.long if name == "learned" else arguments.trials
            search = _searched(workload, make_search, trials, measurer)
            found[name] = {m: min(search.measured[:m], key=lambda item: item[0])[1] for m in MARKS if m <= trials}
    rate = measurer.measured / (time.monotonic() - begin)
    own = Space(workload).own
    seconds = _in_turns(workload, [own, *(point for points in found.values() for point in points.values())])
    curves = {name: {mark: seconds[p.loops] for mark, p in points.items()} for name, points in found.items()}
    return Row(*names, seconds[own.loops], min(seconds.values()), curves, measurer.measured, rate)


def _searched(workload: Workload, make_search: MakeSearch, trials: int, measurer: Measurer) -> Search:
    layer = Layer(workload, 1, make_search)
    Session([layer], measurer, None).run(Budget(trials))
    return layer.search


def _in_turns(workload: Workload, points: Sequence[Point]) -> dict[str, float]:
    """The seconds of points by their loops: medians of rounds in which all of them run, with weights out of cache."""
    decisions = {point.loops: point.decisions for point in points}
    modules = {name: load_parts(build_candidate(workload, d), workload.target.cores) for name, d in decisions.items()}
    any_module = next(iter(modules.values()))
    # The same arrays for all: where they lie makes a difference.
    feeds = feeds_of(any_module, workload.constants, workload.target.l2_bytes)
    runs = {name: runner(module, feeds) for name, module in modules.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(_TURNS):
        order = list(runs)[turn % len(runs) :] + list(runs)[: turn % len(runs)]
        for name in order:
            runs[name]()  # what ran before has left its own data in the caches
            times[name].append(min(runs[name]() for _ in range(3)))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def show(rows: Sequence[Row], threads: int) -> None:
    """Print a table, and how near the searches come."""
    table = rich.table.Table(title=f"Best so far by the best known, from a naive schedule, {threads} threads")
    for head in ("model", "kernel", "shape"):
        table.add_column(head, overflow="fold")
    columns = [(name, mark) for name in rows[0].curves for mark in MARKS if mark in rows[0].curves[name]]
    for head in ("own", *(f"{name} {mark}" for name, mark in columns), "trials/s"):
        table.add_column(head, justify="right")
    for row in rows:
        ratios = [f"{row.curves[name].get(mark, math.nan) / row.best:.2f}" for name, mark in columns]
        table.add_row(row.model, row.kernel, row.shape, f"{row.own / row.best:.2f}", *ratios, f"{row.rate:.1f}")
    rich.console.Console(width=None if sys.stdout.isatty() else 180).print(table, markup=False)
    for name, mark in columns:
        ratios_of = [row.curves[name][mark] / row.best for row in rows if mark in row.curves[name]]
        near = sum(ratio <= NEAR for ratio in ratios_of)
        mean = geometric_mean(ratios_of)
        print(f"{name}, {mark} trials: {mean:.3f} of the best in geometric mean, {near} of {len(ratios_of)} within 5 %")


def tune_matmul(arguments: argparse.Namespace) -> None:
    """The product from the naive schedule; what is found runs in turns with the peak's kernel afterwards."""
    target = host_target()
    options = Options(target, arguments.threads)
    matrix = np.random.default_rng(0).standard_normal((_SIZE, _SIZE), dtype=np.float32)
    model = matmul_model(matrix, matrix, constant=True)
    lowered = lower_model(import_graph(model.SerializeToString(), options, Observer()), options, Observer())
    call = max(lowered.calls, key=lambda call: magnitude(call.flops))
    # No input counts as a weight, which other layers' weights would drive out of the caches: there are no others.
    workload = workload_of_call(call, frozenset(), options.kernel_target)
    begin = time.monotonic()
    with LocalPool(arguments.threads) as pool:
        search = _searched(workload, searches(arguments.seed)["learned"], arguments.trials, pool)
    seconds = time.monotonic() - begin
    assert search.best is not None, "no schedule of the product could be measured"
    schedules = {"found": search.best[1].schedule, "own": workload.schedule()}
    gflops, peak = _beside_peak(workload, schedules, arguments.threads)
    curve = np.minimum.accumulate([seconds for seconds, _ in search.measured]).tolist()
    for trials in sorted({1, 2, 4, 8, 16, 32, 64, 128, 256, len(curve)}):
        if trials <= len(curve):
            reached = gflops["found"] * curve[-1] / curve[trials - 1]
            print(f"after {trials:3d} trials: {reached:6.1f} GFLOP/s, {reached / peak:.1%} of the peak of {peak:.0f}")
    print(f"the library's own: {gflops['own']:.1f} GFLOP/s, {gflops['own'] / peak:.1%} of the peak")
    print(f"{len(curve)} trials in {seconds:.1f} s, {len(curve) / seconds:.1f} per second, {arguments.threads} threads")


def _beside_peak(workload: Workload, schedules: Mapping[str, Schedule], threads: int) -> tuple[dict[str, float], float]:
    """GFLOP/s of schedules of a workload, and the peak, all measured in turns."""
    peak, operations = fma_kernel(workload.target, threads)
    runs: dict[str, Callable[[], object]] = {"peak": peak}
    for name, schedule in schedules.items():
        module = build(schedule, workload.target, threads).module
        random = np.random.default_rng(0)
        shapes = {spec.name: [int(d) for d in spec.shape] for spec in module.inputs}
        feeds = {given: random.standard_normal(shape, dtype=np.float32) for given, shape in shapes.items()}
        runs[name] = functools.partial(module.run, feeds)
    work = dict.fromkeys(runs, magnitude(flops(workload.outputs))) | {"peak": operations}
    gflops = {name: work[name] / seconds * 1e-9 for name, seconds in interleaved(runs, _ROUNDS).items()}
    return gflops, gflops.pop("peak")


def main() -> int:
    arguments = _arguments()
    if arguments.matmul:
        tune_matmul(arguments)
        return 0
    options = Options(threads=arguments.threads)
    by_model = [model_layers(path, options) for path in find_models(arguments.models, arguments.only)]
    chosen = choose_layers(by_model, arguments.skip + arguments.layers)[arguments.skip :]
    rows, competitors = [], searches(arguments.seed)
    for layer in chosen:
        print(f"{layer.model}: {layer.call.symbol} {layer.shape} ...", file=sys.stderr)
        workload = workload_of_call(layer.call, (), options.kernel_target)
        names = (layer.model, layer.call.symbol.rpartition("_")[0], layer.shape)
        rows.append(tune_layer(names, workload, competitors, arguments))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    elif rows:
        show(rows, arguments.threads)
    return 0 if rows else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", type=pathlib.Path, metavar="DIR", help="a folder with more ONNX files")
    add("--only", type=lambda text: text.split(","), default=[], metavar="NAME,...", help="models with such names")
    add("--layers", type=int, default=12, help="how many layers (12)")
    add("--skip", type=int, default=0, help="leave out so many layers first, to measure all in parts")
    add("--trials", type=int, default=64, help="trials of each search (64)")
    add("--long", type=int, default=256, help="trials of the learned search (256)")
    add("--log", type=pathlib.Path, help="keep measurements here, and use those that it has")
    add("--threads", type=int, default=1, help="number of threads (1)")
    add("--seed", type=int, default=0, help="of the searches (0)")
    add("--matmul", action="store_true", help="tune a product of 512 x 512 x 512 instead")
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
