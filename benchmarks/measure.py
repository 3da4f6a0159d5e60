"""Timing of competitors side by side: interleaved rounds, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK_SECONDS = 0.15
"""Aim for the timed part of one competitor in one round."""

REST_SECONDS = 0.15
"""Pause before each competitor's turn, for the threads of the one before to stop spinning: those of OpenBLAS go on for
a tenth of a second, which would take a core from whoever is next."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """``run`` computes everything once, for timing; ``outputs`` does so and gives the outputs by name."""

    run: Callable[[], object]
    outputs: Callable[[], Mapping[str, Array]]


def load_feeds(arguments: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of the file ``feeds``, named as ``inputs`` says."""
    with np.load(arguments["feeds"]) as stored:
        return {name: stored[f"arr_{i}"] for i, name in enumerate(arguments["inputs"])}


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds per call of each function; each round runs all of them, in an order that turns."""
    counts = {name: calls_per_block(function) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name] += time_block(functions[name], counts[name])
    return {name: statistics.median(values) for name, values in times.items()}


def calls_per_block(function: Callable[[], object]) -> int:
    """How many calls fill a competitor's part of a round."""
    function()
    (seconds,) = time_block(function, 1)
    return max(1, min(1000, round(BLOCK_SECONDS / max(seconds, 1e-9))))


def time_block(function: Callable[[], object], calls: int) -> list[float]:
    """Seconds of each of ``calls`` calls, after a rest and one call that is not counted."""
    time.sleep(REST_SECONDS)
    function()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers; NaN for none."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def relative_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest of max|a - b| / max|b| over pairs of arrays; infinite for another shape or a wrong NaN."""
    return max((_error(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)


def _error(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return math.inf
    if not expected.size:
        return 0.0
    a, b = found.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return math.inf
    finite = np.isfinite(b)
    difference = float(np.max(np.abs(a - b), where=finite, initial=0.0))
    return difference / max(float(np.max(np.abs(b), where=finite, initial=0.0)), 1e-30)
