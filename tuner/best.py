"""The best decisions that a tuning log knows, by kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from polycomp.decisions import Decisions
from polycomp.target import Target
from polycomp.tuner.record import Glance, in_unit

_OK = "ok"


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Decisions by the symbol of the kernel; those of symbols in ``near`` were measured on a near target."""

    decisions: Mapping[str, Decisions]
    near: frozenset[str]


def best_decisions(glances: Iterable[Glance], target: Target) -> Tuned:
    """The fastest of each kernel on ``target``, else on a near one: with the same vectors and number of threads, but
    other caches or another name of the CPU. The latest measurement of the same decisions counts, by its ratio to the
    library's own time."""
    wanted, vectors = target.key, _vectors(target.key)
    exact: dict[str, dict[bytes, Glance]] = {}
    near: dict[str, dict[bytes, Glance]] = {}
    for glance in glances:
        if glance.status == _OK and glance.seconds is not None:
            if glance.target == wanted:
                exact.setdefault(glance.symbol, {})[glance.decisions] = glance
            elif _vectors(glance.target) == vectors:
                near.setdefault(glance.symbol, {})[glance.decisions] = glance
    chosen = {symbol: _fastest(found) for symbol, found in {**near, **exact}.items()}
    return Tuned(chosen, frozenset(near.keys() - exact.keys()))


def _fastest(found: Mapping[bytes, Glance]) -> Decisions:
    unit = next((glance.library for glance in found.values() if glance.library is not None), None)
    times = {text: in_unit(glance.seconds or 0.0, glance.library, unit) for text, glance in found.items()}
    return Decisions.from_json(min(times, key=lambda text: times[text]).decode())


def _vectors(key: str) -> tuple[str, ...]:
    """The parts of a target's key that a near target shares: the triple, the features, the number of threads."""
    triple, _, features, rest = [*key.split(";", 3), "", "", ""][:4]
    return triple, features, rest.rpartition(";")[2]
