"""How fast a module is, and how fast a peer is in the same minute."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

_ROUNDS = 10
_ROUND_SECONDS = 0.2
_MOST_RUNS = 1000  # per round


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds a run took: the median, the best, and the 90th percentile of ``runs`` runs."""

    median: float
    best: float
    p90: float
    runs: int


def measure(subjects: Mapping[str, Callable[[], object]], rounds: int = _ROUNDS) -> dict[str, Timing]:
    """Time each subject in turns, so that a change of the machine's speed meets all of them alike.

    Each gets two runs to warm up and then ``rounds`` rounds of about 0.2 s, of one run at least.
    """
    counts = {name: _runs_per_round(run) for name, run in subjects.items()}
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            samples[name] += [_time(run) for _ in range(counts[name])]
    return {name: _timing(found) for name, found in samples.items()}


def _runs_per_round(run: Callable[[], object]) -> int:
    run()
    return max(1, min(_MOST_RUNS, int(_ROUND_SECONDS / max(_time(run), 1e-9))))


def _time(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _timing(samples: Sequence[float]) -> Timing:
    ordered = sorted(samples)
    return Timing(statistics.median(ordered), ordered[0], ordered[int(0.9 * (len(ordered) - 1))], len(ordered))
