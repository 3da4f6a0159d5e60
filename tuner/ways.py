"""Which way the passes go where they have several: direct convolution or filtering, wide or narrow panels, one kernel
or three.

A way is worth what its kernels take at their best, so these are tuned like all others, and the ways are compared by
their sums. What is found goes to the tuning log as decisions of the problem, in the place of a kernel's symbol.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from polycomp.decisions import Decisions, Value
from polycomp.driver.lower import Call, Lowered
from polycomp.graph import Site

Lower = Callable[[Mapping[str, Decisions]], Lowered]
"""The model as kernel calls, where passes make these decisions, by problem, otherwise than they would."""

Times = Mapping[str, float]
"""Seconds of kernels at their best, by symbol."""


def fastest(known: Mapping[Value, float]) -> Value:
    """The way that takes the fewest seconds."""
    return min(known, key=lambda way: known[way])


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A ``problem`` that the model has ``count`` times, and the decision ``name`` about it, which is ``own`` without
    tuning. ``ways`` have for each alternative the calls per inference by which all of them are computed, without those
    that all ways have."""

    problem: str
    name: str
    own: Value
    count: int
    ways: Mapping[Value, Counter[str]]

    def decisions(self, way: Value) -> Decisions:
        """What makes the passes go that way, as a tuning log has it."""
        return Decisions(((self.name, way),))

    def seconds(self, way: Value, times: Times) -> float | None:
        """Per inference; None while a kernel's time is not known."""
        calls = self.ways[way]
        if any(symbol not in times for symbol in calls):
            return None
        return sum(count * times[symbol] for symbol, count in calls.items())

    def known(self, times: Times) -> dict[Value, float]:
        """Seconds per inference of those ways of which they are known."""
        each = {way: self.seconds(way, times) for way in self.ways}
        return {way: seconds for way, seconds in each.items() if seconds is not None}

    def best(self, times: Times) -> Value:
        """The fastest way that is known; the passes' own until there is one."""
        known = self.known(times)
        return fastest(known) if self.own in known else self.own


@dataclasses.dataclass(frozen=True, eq=False)
class Ways:
    """The ``choices`` of a model; ``calls`` of its kernels per inference, as the passes decide without tuning."""

    calls: Counter[str]
    choices: tuple[Choice, ...] = ()

    def best_calls(self, times: Times) -> Counter[str]:
        """Calls per inference when every problem goes the fastest way that is known."""
        return self.calls_by({choice: choice.best(times) for choice in self.choices})

    def calls_by(self, chosen: Mapping[Choice, Value]) -> Counter[str]:
        """Calls per inference when problems go these ways, and all others the passes' own."""
        calls = Counter(self.calls)
        for choice, way in chosen.items():
            calls.subtract(choice.ways[choice.own])
            calls.update(choice.ways[way])
        return +calls

    def behind(self, times: Times) -> dict[str, tuple[int, float]]:
        """Of kernels that are only on slower ways: their calls on the least slow, and how many seconds per inference
        that one is behind."""
        found: dict[str, tuple[int, float]] = {}
        for choice in self.choices:
            known = choice.known(times)
            least = known.get(choice.best(times), 0.0)
            for way in sorted(known, key=lambda w: known[w]):
                for symbol, count in choice.ways[way].items():
                    found.setdefault(symbol, (count, known[way] - least))
        return found


@dataclasses.dataclass(frozen=True)
class Variant:
    """The model with another alternative of some problems, the ``ways``: its ``calls``, and the names of constants."""

    ways: Mapping[str, Value]
    calls: tuple[Call, ...]
    constants: frozenset[str]


def find_ways(base: Lowered, lower: Lower) -> tuple[Ways, dict[str, tuple[Call, frozenset[str]]]]:
    """The choices that passes made in ``base``, and a call of every kernel that is only on other ways, with the names
    of its model's constants.

    The model is lowered once for each alternative, with all problems of one kind decided otherwise at once; what
    belongs to one of them is told by the nodes of the model that calls come from. A problem that cannot be told from
    another one is left as it is.
    """
    variants = list(_variants(base.graph.sites, lower))
    choices: list[Choice] = []
    taken: set[str] = set()
    for problem, sites in _by_problem(base.graph.sites).items():
        mine = [v for v in variants if problem in v.ways]
        lists = [base.calls, *(v.calls for v in mine)]
        nodes = _closure({s for site in sites for s in site.sources}, lists)
        others = {s for x in base.graph.sites if x.problem != problem for s in x.sources if _same_kind(x, sites[0])}
        if nodes & (taken | others):
            continue
        taken |= nodes
        counts = [Counter(c.symbol for c in calls if nodes.intersection(c.sources)) for calls in lists]
        decision, shared = sites[0].decision, functools.reduce(operator.and_, counts)
        values = [decision.value, *(v.ways[problem] for v in mine)]
        ways = dict(zip(values, (count - shared for count in counts), strict=True))
        choices.append(Choice(problem, decision.name, decision.value, len(sites), ways))
    calls = {call.symbol: (call, variant.constants) for variant in variants for call in variant.calls}
    wanted = {symbol for choice in choices for way in choice.ways.values() for symbol in way}
    symbols = Counter(call.symbol for call in base.calls)
    return Ways(symbols, tuple(choices)), {s: calls[s] for s in sorted(wanted - symbols.keys())}


def _same_kind(a: Site, b: Site) -> bool:
    return a.decision.name == b.decision.name


def _by_problem(sites: Iterable[Site]) -> dict[str, list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in sites:
        found.setdefault(site.problem, []).append(site)
    return found


def _variants(sites: Sequence[Site], lower: Lower) -> Iterable[Variant]:
    """The model with the first alternative of every decision of one name, with the second, and so on, as far as these
    are not what it has already."""
    for name in dict.fromkeys(site.decision.name for site in sites):
        mine = {site.problem: site.decision for site in sites if site.decision.name == name}
        for position in range(max(len(d.alternatives) for d in mine.values())):
            ways = {p: d.alternatives[position] for p, d in mine.items() if position < len(d.alternatives)}
            ways = {p: way for p, way in ways.items() if way != mine[p].value}
            if ways:
                lowered = lower({p: Decisions(((name, way),)) for p, way in ways.items()})
                yield Variant(ways, lowered.calls, frozenset(lowered.graph.constants))


def _closure(nodes: set[str], lists: Sequence[Sequence[Call]]) -> set[str]:
    """All nodes of the model that are in calls with ``nodes`` in any of the lists, and so on."""
    found = set(nodes)
    while True:
        more = {s for calls in lists for c in calls if found.intersection(c.sources) for s in c.sources} - found
        if not more:
            return found
        found |= more
