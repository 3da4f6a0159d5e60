"""What a tuning log is worth to its model: what was fastest alone is measured in the model, and the best there is kept.

A kernel is tuned alone, with its inputs where the timing process put them; in the model they come from other kernels,
which leave other things in the caches. And the fastest of many is so partly by luck: kernels that were timed minutes
apart do not tell which of two ways is faster.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from polycomp.decisions import Decisions, Value
from polycomp.driver.bench import measure
from polycomp.options import Options
from polycomp.runtime import Module
from polycomp.tuner.bench import example_feed
from polycomp.tuner.best import Known, in_one_unit, known_of
from polycomp.tuner.database import Database
from polycomp.tuner.in_model import kernel_seconds
from polycomp.tuner.log import with_best
from polycomp.tuner.measurer import Outcome, Trial
from polycomp.tuner.record import Glance, Record, text_of
from polycomp.tuner.session import Layer, best_times, record_of, record_of_way
from polycomp.tuner.status import Status
from polycomp.tuner.ways import Choice, Ways

Compile = Callable[[Options], Module]
"""Makes the module of the model, to run with as many threads as the options say."""

Advice = Mapping[str, Decisions]
"""Decisions by the symbol of a kernel, or by a problem."""

_TURNS = 6  # each with the next best of every kernel and problem
_GAIN = 0.99  # of the best in the model: what is not faster than that alone is not tried there
_NEAR = 1.25  # times the fastest way: kernels that were measured minutes apart do not tell less from chance
_LOSS = 1.01  # times as long: more than chance makes of the runs of whole models


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """Seconds per inference, ``untuned`` and ``tuned``; the kernels and problems of which something was ``tried`` in
    the model, and those of them of which the library's own was found to be the best there: ``kept``."""

    untuned: float
    tuned: float
    tried: tuple[str, ...]
    kept: tuple[str, ...]


def confirm(
    compiled: Compile, options: Options, database: Database, layers: Sequence[Layer], ways: Ways
) -> Confirmation:
    """Measure the best of ``database`` in the model, and compare the model with and without what it then has."""
    return _Confirming(compiled, options, database, layers, ways).run()


class _Confirming:
    def __init__(
        self, compiled: Compile, options: Options, database: Database, layers: Sequence[Layer], ways: Ways
    ) -> None:
        self.compiled, self.options, self.database, self.layers, self.ways = compiled, options, database, layers, ways
        self.plain = compiled(options)
        self.feed = example_feed(self.plain)
        self.known = known_of(database.glances(), options.kernel_target)[0]
        self.tried: dict[str, None] = {}
        times = best_times(layers)
        self.rounds = {c: queue for c in ways.choices if (queue := self._ways_to_try(c, times))}

    def run(self) -> Confirmation:
        most = max(map(len, self.rounds.values()), default=0)
        for turn in range(max(_TURNS, most)):
            ways = self._ways_of(turn)
            kernels = self._next_kernels(ways)
            if not kernels and turn >= most:
                break
            self._measure(ways, kernels)
        untuned, tuned, changed = self._whole()
        return Confirmation(untuned, tuned, tuple(self.tried), tuple(s for s in self.tried if s not in changed))

    def _changed(self, advised: Advice) -> Advice:
        """What of the advice is for this model, and not the library's own."""
        own = {x.workload.symbol: x.space.own.decisions for x in self.layers}
        own |= {c.problem: c.decisions(c.own) for c in self.ways.choices}
        return {symbol: made for symbol, made in advised.items() if symbol in own and made != own[symbol]}

    def _ways_to_try(self, choice: Choice, times: Mapping[str, float]) -> list[Value]:
        """The ways among which the model decides, the most promising first; none where only the own is."""
        known = choice.known(times)
        ways = [way for way in sorted(known, key=lambda w: known[w]) if known[way] < _NEAR * min(known.values())]
        others = [way for way in choice.ways if way in (self._best_way(choice), choice.own) and way not in ways]
        return ways + others if len(ways + others) > 1 else []

    def _ways_of(self, turn: int) -> dict[Choice, Value]:
        """One way of each problem after the other, then the best of them."""
        return {c: ways[turn] if turn < len(ways) else self._best_way(c) for c, ways in self.rounds.items()}

    def _best_way(self, choice: Choice) -> Value:
        """The one that the log has as the fastest, else the passes' own."""
        found = self.known[choice.problem].best().get(choice.name) if choice.problem in self.known else None
        return choice.own if found is None else found

    def _next_kernels(self, ways: Mapping[Choice, Value]) -> dict[str, Decisions]:
        """Of each kernel on these ways what is fastest alone of what was not yet tried in the model."""
        calls = self.ways.calls_by(ways)
        found = {x.workload.symbol: self._next(x) for x in self.layers if calls[x.workload.symbol]}
        return {symbol: made for symbol, made in found.items() if made is not None}

    def _next(self, layer: Layer) -> Decisions | None:
        known = self.known.get(layer.workload.symbol, Known())
        times = in_one_unit(known.alone)
        own = times.get(text_of(layer.space.own.decisions))
        left = {text: seconds for text, seconds in times.items() if text not in known.in_model}
        best = min(left, key=lambda text: left[text], default=None)
        if best is None or own is None:
            return None
        least = _GAIN * min(1.0, self._ratio(layer)) if known.in_model else 1.0
        return Decisions.from_json(best.decode()) if left[best] < least * own else None

    def _ratio(self, layer: Layer) -> float:
        """Of the best in the model, to the library's own there; 1 before something was tried."""
        known = self.known.get(layer.workload.symbol, Known())
        return min(map(_beside, known.in_model.values()), default=1.0)

    def _measure(self, ways: Mapping[Choice, Value], kernels: Advice) -> None:
        """One turn: the model without tuning, with these ways, and with these ways and kernels."""
        decided = {choice.problem: choice.decisions(way) for choice, way in ways.items()}
        base, tried = (self._compiled(tuned) for tuned in (decided, {**decided, **kernels}))
        plain_times, base_times, times = kernel_seconds((self.plain, base, tried), self.feed)
        for layer in self.layers:
            symbol = layer.workload.symbol
            if symbol in kernels and symbol in times:
                self._note(layer, kernels[symbol], times[symbol], base_times[symbol])
        best = dict(base_times)
        for layer in self.layers:
            if layer.workload.symbol in best:
                best[layer.workload.symbol] *= min(1.0, self._ratio(layer))
        for choice, way in ways.items():
            self._note_way(choice, way, choice.seconds(way, best), choice.seconds(choice.own, plain_times))

    def _compiled(self, tuned: Advice) -> Module:
        return self.compiled(dataclasses.replace(self.options, tuned=tuned)) if tuned else self.plain

    def _note(self, layer: Layer, made: Decisions, seconds: float, library: float) -> None:
        """Of a kernel's decisions in the model, and of the library's own beside them."""
        self.tried[layer.workload.symbol] = None
        self._append(layer, layer.space.own.decisions, library, library)
        self._append(layer, made, seconds, library)

    def _append(self, layer: Layer, made: Decisions, seconds: float, library: float) -> None:
        trial = Trial(0, layer.workload, made)
        record = record_of(trial, Outcome(trial.number, Status.OK, seconds, library=library))
        own = made == layer.space.own.decisions
        self._remember(dataclasses.replace(record, own=own, calls=layer.calls, when=round(time.time(), 3)))

    def _note_way(self, choice: Choice, way: Value, seconds: float | None, own: float | None) -> None:
        if seconds is not None and own is not None:
            self.tried[choice.problem] = None
            self._remember(record_of_way(choice, way, (seconds, own), self.options.kernel_target.key))

    def _remember(self, record: Record) -> None:
        told = dataclasses.replace(record, in_model=True)
        self.database.append(told)
        self.known.setdefault(record.symbol, Known()).note(Glance.of(told))

    def _whole(self) -> tuple[float, float, Advice]:
        """Seconds per inference of the model without and with the log, and what this changes in it; everything is
        dropped that makes the model slower together, though no part of it seemed to."""
        while True:
            advised = with_best(self.options, self.database.glances())
            changed = self._changed(advised.tuned)
            untuned, tuned = self._time(advised)
            if changed and tuned > _LOSS * untuned:
                untuned, tuned = self._time(advised)  # it may be where the arrays lie
            if not changed or tuned <= _LOSS * untuned:
                return untuned, tuned, changed
            self._drop(changed, tuned / untuned)

    def _time(self, advised: Options) -> tuple[float, float]:
        """Both models in turns, each with arrays of its own."""
        plain, tuned = self.compiled(self.options), self.compiled(advised)
        times = measure({"untuned": lambda: plain.run(self.feed), "tuned": lambda: tuned.run(self.feed)})
        return times["untuned"].median, times["tuned"].median

    def _drop(self, changed: Advice, ratio: float) -> None:
        """Note of decisions that they take ``ratio`` times the library's time, as the model does with all of them."""
        for layer in self.layers:
            if (symbol := layer.workload.symbol) in changed:
                library = self._library(symbol, layer.own)
                self._note(layer, changed[symbol], ratio * library, library)
        for choice in self.ways.choices:
            if choice.problem in changed and (way := changed[choice.problem].get(choice.name)) is not None:
                library = self._library(choice.problem, None) * choice.count
                self._note_way(choice, choice.own, library, library)
                self._note_way(choice, way, ratio * library, library)

    def _library(self, symbol: str, default: float | None) -> float:
        """The library's seconds that the log has of a kernel or problem."""
        known = self.known.get(symbol, Known())
        found = [g.library for g in (*known.in_model.values(), *known.alone.values()) if g.library is not None]
        return found[0] if found else default or 1.0


def _beside(glance: Glance) -> float:
    """The time to that of the library's own schedule."""
    return (glance.seconds or 0.0) / (glance.library or 1.0)
