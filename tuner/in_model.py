"""How long kernels take within a model."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from polycomp.runtime import Module
from polycomp.tuner.bench import Feed

_LEAST_RUNS, _MOST_RUNS, _SECONDS = 10, 200, 3.0  # of each module


def kernel_seconds(modules: Sequence[Module], feed: Feed) -> list[dict[str, float]]:
    """Seconds of a call of each kernel in each of the modules, by symbol: they run in turns, and medians are told."""
    found = [defaultdict[str, list[int]](list) for _ in modules]
    begin, runs = time.monotonic(), 0
    while runs < _LEAST_RUNS or (runs < _MOST_RUNS and time.monotonic() - begin < _SECONDS):
        for module, times in list(zip(modules, found, strict=True))[:: 1 if runs % 2 else -1]:
            for symbol, nanoseconds in _profile(module, feed).items():
                times[symbol].append(nanoseconds)
        runs += 1
    calls = [Counter(step.symbol for step in module.manifest.steps) for module in modules]
    return [
        {symbol: max(statistics.median(each), 1) * 1e-9 / count[symbol] for symbol, each in times.items()}
        for times, count in zip(found, calls, strict=True)
    ]


def _profile(module: Module, feed: Feed) -> Mapping[str, int]:
    """Nanoseconds of each kernel in one run, of all its calls."""
    total = defaultdict[str, int](int)
    for step in module.run_profiled(feed)[1]:
        total[step.symbol] += step.nanoseconds
    return total
