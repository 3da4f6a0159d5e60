"""The best decisions that a tuning log knows, by kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from polycomp.decisions import Decisions
from polycomp.target import Target
from polycomp.tuner.record import Record

_OK = "ok"


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Decisions by the symbol of the kernel; those of symbols in ``near`` were measured on a near target."""

    decisions: Mapping[str, Decisions]
    near: frozenset[str]


def best_decisions(records: Iterable[Record], target: Target) -> Tuned:
    """The fastest of each kernel on ``target``, else on a near one: with the same vectors and number of threads, but
    other caches or another name of the CPU. The latest record of the same decisions counts."""
    wanted, features = target.key, _vectors(target.key)
    exact: dict[str, dict[Decisions, float]] = {}
    near: dict[str, dict[Decisions, float]] = {}
    for record in records:
        if record.status != _OK or record.seconds is None:
            continue
        if record.target == wanted:
            exact.setdefault(record.symbol, {})[record.decisions] = record.seconds
        elif _vectors(record.target) == features:
            near.setdefault(record.symbol, {})[record.decisions] = record.seconds
    chosen = {symbol: _fastest(times) for symbol, times in {**near, **exact}.items()}
    return Tuned(chosen, frozenset(near.keys() - exact.keys()))


def _fastest(times: Mapping[Decisions, float]) -> Decisions:
    return min(times, key=lambda decisions: times[decisions])


def _vectors(key: str) -> tuple[str, ...]:
    """The parts of a target's key that a near target shares: the triple, the features, the number of threads."""
    triple, _, features, rest = [*key.split(";", 3), "", "", ""][:4]
    return triple, features, rest.rpartition(";")[2]
