"""What a tuning log tells of each kernel: how it got faster, whether the model guessed right, what mattered."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from polycomp.decisions import Decisions, Value
from polycomp.tuner.record import Record, in_unit

_PAUSE = 60.0  # seconds between two records that are not of one session
_LEAST_GUESSES = 4  # predictions of which one can say something
_LEAST_EACH = 2  # measurements with a value, before anything is said of it
_LEAST_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Effect:
    """What the values of the decision ``name`` have to do with the time.

    ``share`` is the part of the variance of the times' logarithms that is between the values, as epsilon squared
    (Kelley, "An unbiased correlation ratio measure", PNAS 21, 1935), which is 0 on average where they have nothing to
    do with it. ``values`` that were measured at least twice are told with the number of measurements and their median
    time beside the fastest's, the best first.
    """

    name: str
    share: float
    values: tuple[tuple[Value, int, float], ...]


@dataclasses.dataclass(frozen=True)
class History:
    """The ``records`` of one kernel on one target, in the order of the log, and those that were measured ``in_model``,
    with times in one unit."""

    records: tuple[Record, ...]
    in_model: tuple[Record, ...] = ()

    @property
    def symbol(self) -> str:
        return self.records[0].symbol

    @functools.cached_property
    def measured(self) -> list[Record]:
        """Those with a time."""
        return [r for r in self.records if r.seconds is not None]

    @functools.cached_property
    def own(self) -> float | None:
        """Seconds of the library's own schedule, when it was measured the last time."""
        return next((r.seconds for r in reversed(self.measured) if r.own), None)

    @functools.cached_property
    def best(self) -> float | None:
        """Seconds of the schedule that the log has as the fastest; the latest measurement of each counts."""
        return min({r.decisions: seconds(r) for r in self.in_model or self.measured}.values(), default=None)

    @property
    def gain(self) -> float | None:
        """How many times faster than the library's own the best is."""
        return None if self.own is None or self.best is None else self.own / self.best

    @property
    def calls(self) -> int:
        """How often the model that was tuned the last calls it."""
        return next((r.calls for r in reversed(self.records) if r.calls is not None), 1)

    @property
    def weight(self) -> float:
        """Seconds per inference."""
        return self.calls * (self.own or self.best or 0.0)

    def curve(self) -> list[tuple[int, float]]:
        """Each trial that was faster than all before: its number, from 1, and its seconds."""
        points: list[tuple[int, float]] = []
        for number, record in enumerate(self.records, 1):
            if record.seconds is not None and (not points or record.seconds < points[-1][1]):
                points.append((number, record.seconds))
        return points

    def guesses(self) -> list[tuple[float, float]]:
        """Predicted and measured seconds of those trials that the model had an opinion on."""
        return [(r.predicted, seconds(r)) for r in self.measured if r.predicted is not None]

    def agreement(self) -> float | None:
        """Spearman's rank correlation of predicted and measured times; None where there are too few or all equal."""
        guesses = self.guesses()
        if len(guesses) < _LEAST_GUESSES or any(len(set(side)) < 2 for side in zip(*guesses, strict=True)):
            return None
        predicted, found = zip(*guesses, strict=True)
        return statistics.correlation(_ranks(predicted), _ranks(found))

    def effects(self) -> list[Effect]:
        """The decisions that have something to do with the time, the weightiest first."""
        names = sorted({name for r in self.measured for name, _ in r.decisions.values})
        found = [effect for name in names if (effect := self._effect(name)) is not None]
        return sorted((e for e in found if e.share >= _LEAST_SHARE), key=lambda e: -e.share)

    def _effect(self, name: str) -> Effect | None:
        times: dict[Value, list[float]] = {}
        for record in self.measured:
            value = record.decisions.get(name)
            if value is not None:
                times.setdefault(value, []).append(seconds(record))
        often = {value: each for value, each in times.items() if len(each) >= _LEAST_EACH}
        if len(often) < 2 or self.best is None:
            return None
        values = [(value, len(each), statistics.median(each) / self.best) for value, each in often.items()]
        share = explained([[math.log(t) for t in each] for each in often.values()])
        return Effect(name, share, tuple(sorted(values, key=lambda v: v[2])))


@dataclasses.dataclass(frozen=True)
class Ways:
    """What a log has of a problem that passes decide about: the last record that counts of each way, by what is
    decided, with times in one unit."""

    records: Mapping[Decisions, Record]

    @property
    def own(self) -> Record | None:
        """The passes' own way."""
        return next((r for r in self.records.values() if r.own), None)

    @property
    def best(self) -> Record:
        """The fastest way."""
        return min(self.records.values(), key=seconds)

    @property
    def saving(self) -> float:
        """Seconds per inference by which the fastest is faster than the passes' own."""
        return 0.0 if self.own is None else (self.own.calls or 1) * (seconds(self.own) - seconds(self.best))


def seconds(record: Record) -> float:
    """The time of a record that has one."""
    assert record.seconds is not None
    return record.seconds


def histories(records: Iterable[Record]) -> dict[str, list[History]]:
    """The kernels of each target, those that take the most time first."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.way:
            continue
        found.setdefault(record.target, {}).setdefault(record.workload, []).append(record)
    return {
        target: sorted(map(_history, kernels.values()), key=lambda h: -h.weight) for target, kernels in found.items()
    }


def _history(records: Sequence[Record]) -> History:
    told = _in_one_unit(records)
    alone, in_model = (tuple(r for r in told if r.in_model == where) for where in (False, True))
    return History(alone or in_model, in_model)


def _in_one_unit(records: Sequence[Record]) -> tuple[Record, ...]:
    """Records of a kernel as if its library's own schedule had always taken as long as the last time."""
    unit = next((r.library for r in reversed(records) if r.library is not None), None)
    return tuple(_told_by(record, unit) for record in records)


def _told_by(record: Record, unit: float | None) -> Record:
    told = [None if t is None else in_unit(t, record.library, unit) for t in (record.seconds, record.predicted)]
    return dataclasses.replace(record, seconds=told[0], predicted=told[1])


def ways(records: Iterable[Record], target: str) -> list[Ways]:
    """The problems of which the log has ways, those of which the most is gained first."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.way and record.target == target and record.seconds is not None:
            found.setdefault(record.symbol, []).append(record)
    return sorted(map(_ways, found.values()), key=lambda w: -w.saving)


def _ways(records: Sequence[Record]) -> Ways:
    """What was measured in the model counts alone where there is any."""
    told = _in_one_unit([r for r in records if r.in_model] or records)
    return Ways({record.decisions: record for record in told})


def counts(layers: Iterable[History]) -> Counter[str]:
    """Trials by status."""
    return Counter(record.status for layer in layers for record in layer.records)


def rate(layers: Iterable[History]) -> float | None:
    """Trials per second while there was a session; None where the log does not tell."""
    times = sorted(r.when for layer in layers for r in layer.records if r.when is not None)
    gaps = [b - a for a, b in itertools.pairwise(times) if b - a < _PAUSE]
    return len(gaps) / sum(gaps) if sum(gaps) > 0 else None


def per_inference(layers: Iterable[History], other_ways: Iterable[Ways] = ()) -> tuple[float, float]:
    """Seconds that all calls take by the library's own schedules and by the best, as far as both are known; the best
    also go the fastest ways."""
    known = [(x.calls, x.own, x.best) for x in layers if x.own is not None and x.best is not None]
    best = sum(calls * best for calls, _, best in known) - sum(w.saving for w in other_ways)
    return sum(calls * own for calls, own, _ in known), best


def explained(groups: Sequence[Sequence[float]]) -> float:
    """Epsilon squared: the part of the variance that is between the groups, without what chance would give."""
    everything = [x for group in groups for x in group]
    mean = statistics.fmean(everything)
    total = sum((x - mean) ** 2 for x in everything)
    within = sum((x - statistics.fmean(group)) ** 2 for group in groups for x in group)
    freedom = len(everything) - len(groups)
    if total <= 0 or freedom <= 0:
        return 0.0
    return max(0.0, 1 - (within / freedom) / (total / (len(everything) - 1)))


def _ranks(values: Sequence[float]) -> list[float]:
    """1 for the least; equal ones share the mean of theirs."""
    ordered = sorted(values)
    first = {value: position for position, value in reversed(list(enumerate(ordered, 1)))}
    count = Counter(ordered)
    return [first[v] + (count[v] - 1) / 2 for v in values]
