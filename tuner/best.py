"""The best decisions that a tuning log knows, by kernel."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
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


@dataclasses.dataclass(frozen=True)
class Known:
    """What a log has of one kernel, or of the ways of one problem: the latest measurement of each decisions, as JSON
    text, ``alone`` and ``in_model``."""

    alone: dict[bytes, Glance] = dataclasses.field(default_factory=dict)
    in_model: dict[bytes, Glance] = dataclasses.field(default_factory=dict)

    def note(self, glance: Glance) -> None:
        """Take one more measurement into account, which has a time."""
        (self.in_model if glance.in_model else self.alone)[glance.decisions] = glance

    def best(self) -> Decisions:
        """The fastest. What was measured in its model counts more than what was measured alone: the fastest of many
        is so partly by luck, and in a model other things are in the caches."""
        times = in_one_unit(self.in_model or self.alone)
        return Decisions.from_json(min(times, key=lambda text: times[text]).decode())


def in_one_unit(found: Mapping[bytes, Glance]) -> dict[bytes, float]:
    """Seconds by decisions, as if the library's own had always taken what it took at first."""
    unit = next((glance.library for glance in found.values() if glance.library is not None), None)
    return {text: in_unit(glance.seconds or 0.0, glance.library, unit) for text, glance in found.items()}


def known_of(glances: Iterable[Glance], target: Target) -> tuple[dict[str, Known], dict[str, Known]]:
    """What a log has of each symbol on ``target``, and on near ones: with the same vectors and number of threads, but
    other caches or another name of the CPU."""
    wanted, vectors = target.key, _vectors(target.key)
    exact, near = defaultdict[str, Known](Known), defaultdict[str, Known](Known)
    for glance in glances:
        if glance.status == _OK and glance.seconds is not None:
            if glance.target == wanted:
                exact[glance.symbol].note(glance)
            elif _vectors(glance.target) == vectors:
                near[glance.symbol].note(glance)
    return dict(exact), dict(near)


def best_decisions(glances: Iterable[Glance], target: Target) -> Tuned:
    """The fastest of each kernel on ``target``, else on a near one."""
    exact, near = known_of(glances, target)
    chosen = {symbol: found.best() for symbol, found in {**near, **exact}.items()}
    return Tuned(chosen, frozenset(near.keys() - exact.keys()))


def _vectors(key: str) -> tuple[str, ...]:
    """The parts of a target's key that a near target shares: the triple, the features, the number of threads."""
    triple, _, features, rest = [*key.split(";", 3), "", "", ""][:4]
    return triple, features, rest.rpartition(";")[2]
