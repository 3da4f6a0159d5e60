"""Searching a space: what to measure next, given what was measured."""

from __future__ import annotations

import abc
import math
import random
from collections.abc import Iterable, Iterator, Sequence

from polycomp.tuner.space import Point, Space

_PATIENCE = 30  # draws per wanted point that give nothing new, after which the space counts as exhausted


class Search(abc.ABC):
    """Proposes points of ``space``, never one with loops that were proposed before; ``seeds`` come first.

    The same ``chance`` and the same outcomes give the same proposals.
    """

    def __init__(self, space: Space, seeds: Iterable[Point], chance: random.Random) -> None:
        self.space, self.chance = space, chance
        self.measured: list[tuple[float, Point]] = []
        self.predicted: dict[str, float] = {}  # seconds by loops, where there was a model to ask
        self._seeds = list(seeds)
        self._known: set[str] = set()

    def propose(self, count: int) -> Sequence[Point]:
        """Up to ``count`` points to measure next; none when there are no more."""
        found = [p for p in self._seeds[:count] if self._is_new(p)]
        self._seeds = self._seeds[count:]
        return [*found, *self._propose(count - len(found))] if len(found) < count else found

    def observe(self, point: Point, seconds: float | None) -> None:
        """A point's time, the latest if it was measured before; None when it failed in some way."""
        self._known.add(point.loops)
        self.measured = [item for item in self.measured if item[1].loops != point.loops]
        self.measured.append((math.inf if seconds is None else seconds, point))

    @property
    def best(self) -> tuple[float, Point] | None:
        """The fastest point so far, with its seconds."""
        fastest = min(self.measured, key=lambda item: item[0], default=None)
        return fastest if fastest is not None and fastest[0] < math.inf else None

    @abc.abstractmethod
    def _propose(self, count: int) -> Sequence[Point]:
        """Up to ``count`` new points."""

    def _is_new(self, point: Point | None) -> bool:
        """Whether a point was not proposed before; it is then remembered."""
        if point is None or point.loops in self._known:
            return False
        self._known.add(point.loops)
        return True

    def _new_points(self, draws: Iterator[Point | None], count: int) -> list[Point]:
        found: list[Point] = []
        for turn, point in enumerate(draws):
            if self._is_new(point):
                assert point is not None
                found.append(point)
            if len(found) >= count or turn >= _PATIENCE * count:
                break
        return found


class RandomSearch(Search):
    """Points of random paths: the baseline that others must beat."""

    def _propose(self, count: int) -> Sequence[Point]:
        return self._new_points(self._draws(), count)

    def _draws(self) -> Iterator[Point | None]:
        while True:
            yield self.space.at_random(self.chance)


class ExhaustiveSearch(Search):
    """All points, one after the other."""

    def __init__(self, space: Space, seeds: Iterable[Point], chance: random.Random) -> None:
        super().__init__(space, seeds, chance)
        self._all = space.points()

    def _propose(self, count: int) -> Sequence[Point]:
        found: list[Point] = []
        while len(found) < count and (point := next(self._all, None)) is not None:
            found += [point] if self._is_new(point) else []
        return found
