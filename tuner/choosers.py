"""Who makes the decisions while a schedule is built for the search: chance, or parents and chance."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence

from polycomp.decisions import Decision, Value

_NEAR = 4  # a mutated number is mostly one of so many nearest alternatives
_NEAR_SHARE = 0.6


class _Searching:
    """Base of choosers that may answer any question."""

    def check_known(self, made: Iterable[Decision]) -> None:
        """Whatever a schedule asks for is known."""


class AtRandom(_Searching):
    """Every alternative is as likely as the others. ``branches`` are the numbers of alternatives met."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.branches: list[int] = []

    def choose(self, name: str, own: Value, alternatives: Sequence[Value]) -> Value:
        """Any alternative."""
        self.branches.append(len(alternatives))
        return self._chance.choice(alternatives)


class Inherited(_Searching):
    """Decisions of ``parents``, each of any of them, but those in ``varied`` changed.

    What no parent has, or what is no alternative any more after other changes, is left to the library.
    """

    def __init__(
        self, chance: random.Random, parents: Sequence[Mapping[str, Value]], varied: Collection[str] = ()
    ) -> None:
        self._chance, self._parents, self._varied = chance, parents, varied

    def choose(self, name: str, own: Value, alternatives: Sequence[Value]) -> Value:
        """What a parent has, or something like it."""
        wanted = self._chance.choice(self._parents).get(name, own)
        value = wanted if wanted in alternatives else own
        others = [a for a in alternatives if a != value]
        if name not in self._varied or not others:
            return value
        if self._chance.random() < _NEAR_SHARE:
            others = sorted(others, key=lambda other: distance(value, other))[:_NEAR]
        return self._chance.choice(others)


class Smallest(_Searching):
    """The least of everything: no packing, tiles of one element, nothing asked for ahead. A naive schedule."""

    def choose(self, name: str, own: Value, alternatives: Sequence[Value]) -> Value:
        """The smallest number, the first word."""
        return min(alternatives, key=lambda a: (isinstance(a, str), a) if isinstance(a, str) else (False, _sum(a)))


class Path(_Searching):
    """The alternatives at these positions, then the first of each. ``branches`` are the numbers of alternatives met."""

    def __init__(self, positions: Sequence[int]) -> None:
        self._positions = positions
        self.branches: list[int] = []

    def choose(self, name: str, own: Value, alternatives: Sequence[Value]) -> Value:
        """The alternative whose turn it is."""
        turn = len(self.branches)
        self.branches.append(len(alternatives))
        return alternatives[self._positions[turn] if turn < len(self._positions) else 0]


def distance(a: Value, b: Value) -> float:
    """How unlike two choices are: numbers by their ratio, tuples by the sum over their numbers."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return sum(distance(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, str) or isinstance(b, str) or isinstance(a, tuple) or isinstance(b, tuple):
        return 1.0
    return abs(math.log((a + 1) / (b + 1)))


def _sum(value: int | tuple[int, ...]) -> int:
    return sum(value) if isinstance(value, tuple) else value
