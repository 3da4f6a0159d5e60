"""Tuning the kernels of a model: proposals are measured, recorded and learned from, until the budget is spent."""

from __future__ import annotations

import dataclasses
import math
import random
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from polycomp.decisions import Decisions, Value
from polycomp.driver.cache import key_of
from polycomp.tuner.budget import Standing, expected_gain
from polycomp.tuner.database import Database
from polycomp.tuner.evolution import EvolutionarySearch
from polycomp.tuner.measurer import Measurer, Outcome, Trial
from polycomp.tuner.model import Experience, make_model
from polycomp.tuner.record import Record, in_unit
from polycomp.tuner.search import Search
from polycomp.tuner.space import Point, Space
from polycomp.tuner.status import Status
from polycomp.tuner.versions import tool_versions
from polycomp.tuner.ways import Choice, Ways, fastest
from polycomp.tuner.workload import Workload

MakeSearch = Callable[[Space], Search]

_BATCH = 8
_BATCHES_BEGUN, _WORTH = 2, 0.5
_FIRST_BATCH = 2  # the library's own choice and one other: all layers are known soon
_LEAST_GAIN = 0.03  # of another way: kernels that were measured minutes apart do not tell less from chance


@dataclasses.dataclass(frozen=True)
class Budget:
    """At most so many ``trials`` and ``seconds``; None for no limit."""

    trials: int | None = None
    seconds: float | None = None


class Layer:
    """A kernel of the model in the course of tuning. It is called ``calls`` times per inference without tuning.

    ``own`` are the seconds of the library's own schedule where it was timed first, in which all others are told:
    machines of one target are never equally fast, nor is one at all times, but what a schedule gains over the library's
    is nearly the same. ``quickest`` are those of the fastest round of any schedule, by which kernels are compared with
    other ones; ``counts`` tell how many trials had each status.
    """

    def __init__(self, workload: Workload, calls: int, make_search: MakeSearch) -> None:
        self.workload, self.calls = workload, calls
        self.space = Space(workload)
        self.search = make_search(self.space)
        self.standing = Standing(calls)
        self.own: float | None = None
        self.quickest: float | None = None
        self.counts: dict[Status, int] = {}

    @property
    def best(self) -> float | None:
        """Seconds of the fastest schedule so far."""
        return self.search.best[0] if self.search.best is not None else None

    @property
    def trials(self) -> int:
        return sum(self.counts.values())

    def learn(
        self, point: Point, status: Status, seconds: float | None, library: float | None, samples: Sequence[float]
    ) -> None:
        """Take a measurement into account, made where the library's own schedule took ``library`` seconds (None for
        one that did not tell)."""
        if status is not Status.OK or seconds is None:
            self.search.observe(point, None)
            return
        self.own = self.own or library or (seconds if self.is_own(point) else None)
        self.quickest = min(self.quickest or math.inf, min(samples, default=seconds))
        self.search.observe(point, in_unit(seconds, library, self.own))

    def is_own(self, point: Point) -> bool:
        """Whether it is the library's choice."""
        return point.loops == self.space.own.loops


_Batch = list[tuple[Layer, Point]]


def library_first(seed: int = 0) -> MakeSearch:
    """The usual search: evolution from the library's own choice, with learned models, which all layers that it is made
    for share their experience with."""
    experience = Experience()
    return lambda space: EvolutionarySearch(space, [space.own], random.Random(seed), make_model(experience))


class Watcher:
    """Told how the tuning goes; this one ignores it."""

    def outcome(self, layer: Layer, outcome: Outcome) -> None:
        """A trial of ``layer`` has ended."""


class Session:
    """The tuning of ``layers`` with ``measurer``; every outcome is appended to ``database`` before the next is waited
    for, so that nothing is lost when it is interrupted. ``ways`` tell what the layers are parts of."""

    def __init__(
        self,
        layers: Sequence[Layer],
        measurer: Measurer,
        database: Database | None,
        watcher: Watcher | None = None,
        ways: Ways | None = None,
    ) -> None:
        self.layers, self.measurer, self.database = list(layers), measurer, database
        self.watcher = watcher or Watcher()
        self.ways = ways or Ways(Counter({x.workload.symbol: x.calls for x in layers}))
        self._target = self.layers[0].workload.target.key if self.layers else ""
        self.trials = 0
        self._waiting: dict[int, tuple[Layer, Point, Trial]] = {}
        self._told = self._ways_in_log()
        self._began = time.monotonic()

    def resume(self) -> int:
        """Learn what the database knows already; returns how many measurements it had. Those whose decisions make no
        schedule any more are counted in a warning."""
        by_key = {layer.workload.key: layer for layer in self.layers}
        known: Counter[Layer] = Counter()
        stale = 0
        for record in self.database.records() if self.database is not None else ():
            layer = by_key.get(record.workload)
            if layer is not None and record.target == layer.workload.target.key:
                fits = _replay(layer, record)
                known[layer] += fits
                stale += not fits
        if stale:
            warnings.warn(
                f"{stale} measurements of the tuning log are of schedules that exist no more; they are left out",
                stacklevel=2,
            )
        for layer in self.layers:
            layer.standing.best = layer.best
            layer.standing.batches = math.ceil(known[layer] / _BATCH)
        self._compare_ways()
        return known.total()

    def run(self, budget: Budget) -> None:
        """Tune until the budget is spent or every space is exhausted.

        While a batch is compiled the next one is made, of other layers where these are nearly as much worth it: to draw
        schedules takes as long as to time them.
        """
        begun: deque[_Batch] = deque()
        try:
            while True:
                while len(begun) < _BATCHES_BEGUN and (batch := self._begin(budget, begun)):
                    begun.append(batch)
                if not begun:
                    return
                self._finish(begun.popleft())
                self._compare_ways()
                self._tell_ways(final=False)
        finally:
            self._tell_ways(final=True)

    def _affordable(self, budget: Budget) -> int:
        """How many more trials there may be in the next batch."""
        if budget.seconds is not None and time.monotonic() - self._began >= budget.seconds:
            return 0
        most = max(_BATCH, self.measurer.capacity)
        return most if budget.trials is None else min(most, budget.trials - self.trials)

    def _next_batch(self, count: int, busy: Iterable[Layer]) -> _Batch:
        """Up to ``count`` points: of the layer whose turn it is, or a few each of layers that had none yet; none of
        ``busy`` layers, which are about to learn something."""
        batch: _Batch = []
        asked = list(busy)
        while len(batch) < count:
            layer = next_layer(self.layers, asked)
            if layer is None:
                break
            asked.append(layer)
            wanted = _BATCH if layer.standing.batches else _FIRST_BATCH if layer.calls else 1
            points = layer.search.propose(min(wanted, count - len(batch)))
            layer.standing.exhausted = not points
            batch += [(layer, point) for point in points]
        return batch

    def _begin(self, budget: Budget, begun: Iterable[_Batch]) -> _Batch:
        """Submit another batch while there are ``begun`` ones; empty when there is nothing more for now."""
        count, busy = self._affordable(budget), [layer for batch in begun for layer, _ in batch]
        if count <= 0 or not self._may_begin_beside(busy):
            return []
        with self.measurer.thinking():
            batch = self._next_batch(count, busy)
        for layer, point in batch:
            self.trials += 1
            trial = Trial(self.trials, layer.workload, point.decisions)
            self._waiting[trial.number] = layer, point, trial
            self.measurer.submit(trial)
        return batch

    def _may_begin_beside(self, busy: Sequence[Layer]) -> bool:
        """Whether a layer that is not ``busy`` is new, or promises half of what the busy ones do."""
        layer = next_layer(self.layers, busy)
        if layer is None or not busy or not layer.standing.batches:
            return layer is not None
        return expected_gain(layer.standing) >= _WORTH * max(expected_gain(x.standing) for x in busy)

    def _finish(self, batch: _Batch) -> None:
        """Wait until all of a batch is measured; outcomes of later batches are noted as they come."""
        points = {id(point) for _, point in batch}
        while any(id(point) in points for _, point, _ in self._waiting.values()):
            for outcome in self.measurer.collect():
                self._note(*self._waiting.pop(outcome.number), outcome)
        for layer in dict.fromkeys(layer for layer, _ in batch):
            layer.standing.update(layer.best)

    def _compare_ways(self) -> None:
        """Turn to the layers of the fastest ways."""
        times = best_times(self.layers)
        calls, behind = self.ways.best_calls(times), self.ways.behind(times)
        for layer in self.layers:
            symbol, standing = layer.workload.symbol, layer.standing
            standing.calls, standing.behind = calls[symbol], 0.0
            if not standing.calls:
                standing.calls, standing.behind = behind.get(symbol, (layer.calls, 0.0))

    def _ways_in_log(self) -> dict[str, dict[Value, float]]:
        """Seconds per inference of the ways of each problem that the log has them of, as sums of kernels measured
        alone: the last that it has."""
        choices = {choice.problem: choice for choice in self.ways.choices}
        found: dict[str, dict[Value, float]] = {}
        for glance in self.database.glances() if self.database is not None and choices else ():
            choice = choices.get(glance.symbol)
            if choice is None or glance.target != self._target or glance.seconds is None or glance.in_model:
                continue
            way = Decisions.from_json(glance.decisions.decode()).get(choice.name)
            if way is not None:
                found.setdefault(choice.problem, {})[way] = glance.seconds * choice.count
        return found

    def _tell_ways(self, final: bool) -> None:
        """Append to the log the ways of problems where another one than the passes' is faster, or was so before: when
        the fastest changes, and in the end."""
        if self.database is None:
            return
        times = best_times(self.layers)
        for choice in self.ways.choices:
            known = choice.known(times)
            before = self._told.get(choice.problem)
            if before == known or not (before or _is_worth_it(choice, known)):
                continue
            if final or before is None or fastest(before) != fastest(known):
                self._told[choice.problem] = known
                for way, seconds in known.items():
                    self.database.append(record_of_way(choice, way, (seconds, known.get(choice.own)), self._target))

    def _note(self, layer: Layer, point: Point, trial: Trial, outcome: Outcome) -> None:
        if layer.is_own(point) and outcome.library is not None:
            # What compares the library's own with itself may only add an error.
            outcome = dataclasses.replace(outcome, seconds=outcome.library)
        layer.counts[outcome.status] = layer.counts.get(outcome.status, 0) + 1
        layer.learn(point, outcome.status, outcome.seconds, outcome.library, outcome.samples)
        if self.database is not None:
            self.database.append(_with_circumstances(record_of(trial, outcome), layer, point))
        self.watcher.outcome(layer, outcome)


def next_layer(layers: Sequence[Layer], asked: Sequence[Layer]) -> Layer | None:
    """The layer whose turn it is: each first has one turn, then the one with most to gain. None when all the others are
    exhausted or were ``asked`` already."""
    left = [x for x in layers if not x.standing.exhausted and x not in asked]
    fresh = next((x for x in left if not x.standing.batches), None)
    return fresh or max(left, key=lambda x: expected_gain(x.standing), default=None)


def record_of(trial: Trial, outcome: Outcome) -> Record:
    """What is remembered of a trial."""
    workload, status = trial.workload, outcome.status.value
    names, measured = (workload.key, workload.symbol, workload.target.key), (outcome.samples, outcome.error)
    return Record(*names, trial.decisions, status, outcome.seconds, *measured, tool_versions(), library=outcome.library)


def _with_circumstances(record: Record, layer: Layer, point: Point) -> Record:
    predicted, when = layer.search.predicted.get(point.loops), round(time.time(), 3)
    if predicted is not None:
        predicted = in_unit(predicted, layer.own, record.library)
    return dataclasses.replace(record, predicted=predicted, own=layer.is_own(point), calls=layer.calls, when=when)


def best_times(layers: Iterable[Layer]) -> dict[str, float]:
    """Seconds of each kernel that has been measured at its best, by symbol, to compare kernels with each other.

    What is told beside the library's own time inherits the luck with which that was measured; the fastest round of all
    that a kernel ever had, minutes apart, was undisturbed.
    """
    return {layer.workload.symbol: layer.quickest for layer in layers if layer.quickest is not None}


def _is_worth_it(choice: Choice, known: Mapping[Value, float]) -> bool:
    own = known.get(choice.own)
    return own is not None and min(known.values()) < (1 - _LEAST_GAIN) * own


def record_of_way(choice: Choice, way: Value, seconds: tuple[float, float | None], target: str) -> Record:
    """What is remembered of a way: its seconds per inference and those of the passes' own, if they are known."""
    names = key_of(choice.problem), choice.problem
    each, library = (None if t is None else t / choice.count for t in seconds)
    known = Record(
        *names, target, choice.decisions(way), Status.OK.value, each, (), "", tool_versions(), library=library
    )
    when = round(time.time(), 3)
    return dataclasses.replace(known, own=way == choice.own, calls=choice.count, when=when, way=True)


def _replay(layer: Layer, record: Record) -> bool:
    """Learn from a record whose decisions still make a schedule; whether they did."""
    point = layer.space.draw(record.decisions)
    if point is None or record.status not in set(Status):
        return False
    layer.learn(point, Status(record.status), record.seconds, record.library, record.samples)
    return True
