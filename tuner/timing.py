"""Timing two programs in turns until it is known well enough which is faster, and by how much."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

Run = Callable[[], float]
"""Runs a program once; returns its seconds."""

_LEAST_ROUNDS = 3  # to know that a candidate is slower
_MOST_RUNS = 50  # per round
_OVERHEAD = 2e-5  # seconds that a run takes beside those that it tells
_SURE = 2.5  # standard errors on both sides of the mean: 98 % of a normal distribution


@dataclasses.dataclass(frozen=True)
class Effort:
    """``seconds`` that a comparison may take, most of them in rounds of ``round_seconds`` per program.

    It ends when the ratio is known to ``precision``, after ``rounds`` at least, or is surely larger than ``hopeless``.
    A candidate that takes ``far`` times as long in its first two runs has no rounds at all.
    """

    seconds: float = 0.08
    rounds: int = 5
    round_seconds: float = 0.002
    precision: float = 0.01
    hopeless: float = 1.05
    far: float = 2.0

    @property
    def twice(self) -> Effort:
        """Twice as long, and never ended early for being hopeless."""
        longer = dataclasses.replace(self, seconds=2 * self.seconds, rounds=2 * self.rounds)
        return dataclasses.replace(longer, precision=self.precision / 2, hopeless=math.inf)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """``ratio`` of the candidate's time to the incumbent's, with the half-width of the rounds' confidence interval (a
    share; infinite for a single look), and the seconds of the candidate's runs, medians of rounds."""

    ratio: float
    half_width: float
    samples: tuple[float, ...]


def compare(candidate: Run, incumbent: Run, effort: Effort) -> Comparison:
    """Time both in alternating rounds: what changes the machine's speed meets both alike.

    A shared machine is slower for a while, again and again. Where that lasts about a round, most of the incumbent's few
    rounds may be slow, and the median of the rounds' ratios tells a candidate to be far faster than it is; where it
    lasts for many rounds, one of the candidate's may be the only fast one, and the ratio of the best rounds does. The
    larger of the two is hardly ever wrong in this direction, in which the best of many candidates would find every
    error; it is 0.3 % too large where nothing disturbs.
    """
    candidate()  # the first run of new code meets cold caches and page faults
    ours, theirs = min(candidate(), candidate()), min(incumbent(), incumbent())
    if effort.far * theirs < ours < 2 * effort.far * theirs:
        ours = min(ours, candidate(), candidate())  # it may have been disturbed
    if ours > effort.far * theirs:
        return Comparison(ours / theirs, math.inf, (ours,))
    spent, logs, samples, others = 0.0, list[float](), list[float](), list[float]()
    while len(logs) < effort.rounds or spent < effort.seconds:
        pair = [(candidate, ours), (incumbent, theirs)]
        times = [_round(run, expected, effort) for run, expected in (pair if len(logs) % 2 else reversed(pair))]
        (our_median, our_sum), (their_median, their_sum) = times if len(logs) % 2 else reversed(times)
        spent += our_sum + their_sum
        logs.append(math.log(our_median / their_median))
        samples.append(our_median)
        others.append(their_median)
        if len(logs) >= _LEAST_ROUNDS and _is_enough(logs, effort):
            break
    ratio = max(min(samples) / min(others), math.exp(statistics.median(logs)))
    return Comparison(ratio, _half_width(logs), tuple(samples))


def best_round(run: Run, rounds: int, effort: Effort) -> float:
    """The seconds of a run in the best of so many rounds."""
    expected = min(run(), run())
    return min(_round(run, expected, effort)[0] for _ in range(rounds))


def _round(run: Run, expected: float, effort: Effort) -> tuple[float, float]:
    """The median of some runs, and how long all took."""
    count = max(1, min(_MOST_RUNS, round(effort.round_seconds / (expected + _OVERHEAD))))
    times = [run() for _ in range(count)]
    return max(statistics.median(times), 1e-9), sum(times) + count * _OVERHEAD


def _half_width(logs: list[float]) -> float:
    return _SURE * statistics.stdev(logs) / math.sqrt(len(logs))


def _is_enough(logs: list[float], effort: Effort) -> bool:
    half = _half_width(logs)
    precise = len(logs) >= effort.rounds and half < effort.precision
    return precise or statistics.fmean(logs) - half > math.log(effort.hopeless)
