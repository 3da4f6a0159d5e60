"""What a tuning log is worth to its model: both modules run in turns, and what is slower there is noted in the log.

A kernel is tuned alone, with its inputs where the timing process put them; in the model they come from other kernels,
which leave other things in the caches.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from polycomp.driver.bench import measure
from polycomp.options import Options
from polycomp.runtime import Module
from polycomp.tuner.bench import Feed, example_feed
from polycomp.tuner.database import Database
from polycomp.tuner.log import with_best
from polycomp.tuner.measurer import Outcome, Trial
from polycomp.tuner.record import Record
from polycomp.tuner.session import Layer, record_of
from polycomp.tuner.status import Status

Compile = Callable[[Options], Module]
"""Makes the module of the model, to run with as many threads as the options say."""

_LOSS = 1.01  # times the library's own: more than chance makes of so many runs
_TURNS = 4  # each with the next best of what was slower in the one before
_LEAST_RUNS, _MOST_RUNS, _SECONDS = 10, 200, 3.0  # of both modules, per turn


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """Seconds per inference, ``untuned`` and ``tuned``, and the kernels of which something was ``dropped``: it was
    slower in the model than the library's own."""

    untuned: float
    tuned: float
    dropped: tuple[str, ...]


def confirm(compiled: Compile, options: Options, database: Database, layers: Iterable[Layer]) -> Confirmation:
    """Compare the model with and without the best of ``database``.

    Of a kernel that is slower with it than with the library's own schedule, this is appended as the latest measurement,
    and the next best is tried, a few times.
    """
    plain, by_symbol, dropped = compiled(options), {x.workload.symbol: x for x in layers}, dict[str, None]()
    feed = example_feed(plain)
    for turn in itertools.count():
        advised = with_best(options, database.glances())
        tuned = compiled(advised)
        if turn == _TURNS:
            break
        ratios = kernel_ratios(tuned, plain, feed)
        changed = [layer for symbol, layer in by_symbol.items() if symbol in ratios and _is_changed(layer, advised)]
        losers = [layer for layer in changed if ratios[layer.workload.symbol] > _LOSS]
        if not losers:
            break
        for layer in losers:
            dropped[layer.workload.symbol] = None
            database.append(_in_model(layer, advised, ratios[layer.workload.symbol]))
    times = measure({"untuned": lambda: plain.run(feed), "tuned": lambda: tuned.run(feed)})
    return Confirmation(times["untuned"].median, times["tuned"].median, tuple(dropped))


def kernel_ratios(module: Module, other: Module, feed: Feed) -> dict[str, float]:
    """How many times as long as in ``other`` each kernel takes that both have, per inference: both run in turns, and
    medians are compared."""
    both, found = (module, other), (defaultdict[str, list[int]](list), defaultdict[str, list[int]](list))
    begin, runs = time.monotonic(), 0
    while runs < _LEAST_RUNS or (runs < _MOST_RUNS and time.monotonic() - begin < _SECONDS):
        for each, times in list(zip(both, found, strict=True))[:: 1 if runs % 2 else -1]:
            for symbol, nanoseconds in _profile(each, feed).items():
                times[symbol].append(nanoseconds)
        runs += 1
    ours, theirs = ({symbol: statistics.median(each) for symbol, each in times.items()} for times in found)
    return {symbol: ours[symbol] / max(theirs[symbol], 1) for symbol in ours.keys() & theirs.keys()}


def _profile(module: Module, feed: Feed) -> Mapping[str, int]:
    """Nanoseconds of each kernel in one run, of all its calls."""
    total = defaultdict[str, int](int)
    for step in module.run_profiled(feed)[1]:
        total[step.symbol] += step.nanoseconds
    return total


def _is_changed(layer: Layer, options: Options) -> bool:
    """Whether ``options`` have other decisions than the library's own."""
    return options.tuned.get(layer.workload.symbol, layer.space.own.decisions) != layer.space.own.decisions


def _in_model(layer: Layer, options: Options, ratio: float) -> Record:
    """That a kernel takes ``ratio`` times the library's time there, with the decisions of ``options``."""
    library = layer.own or 1.0
    trial = Trial(0, layer.workload, options.tuned[layer.workload.symbol])
    known = record_of(trial, Outcome(trial.number, Status.OK, ratio * library, library=library))
    return dataclasses.replace(known, calls=layer.calls, when=round(time.time(), 3))
