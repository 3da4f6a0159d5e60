"""The search space of a workload: what its schedule can be asked to decide otherwise."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Iterator, Mapping

from polycomp.decisions import Chooser, Decision, Decisions
from polycomp.driver.cache import key_of
from polycomp.errors import ScheduleError
from polycomp.schedules import Schedule
from polycomp.tuner.choosers import AtRandom, Path, Smallest
from polycomp.tuner.features import features_of
from polycomp.tuner.pruning import check_resources
from polycomp.tuner.workload import Workload


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A schedule in the space: all its ``decisions`` that have alternatives, as they were ``made``.

    ``loops`` is equal for points with the same loops.
    """

    decisions: Decisions
    made: tuple[Decision, ...]
    loops: str
    schedule: Schedule
    workload: Workload

    @functools.cached_property
    def features(self) -> Mapping[str, float]:
        """What a cost model is told."""
        return features_of(self.schedule.kernel, self.made, self.workload.target)


@dataclasses.dataclass(frozen=True)
class SpaceSize:
    """How many points there are ``before`` and ``after`` hopeless ones were pruned; estimates unless ``exact``."""

    before: float
    after: float
    exact: bool = False


class Space:
    """The points of ``workload``."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._probes: list[tuple[float, bool]] = []  # leaves that a random path stands for, and whether it is a point

    @functools.cached_property
    def own(self) -> Point:
        """The library's choice, which is never hopeless."""
        return _point(self.workload, self.workload.schedule())

    def naive(self) -> Point:
        """A deliberately bad start: the smallest of everything."""
        return _point(self.workload, self.workload.schedule(Smallest()))

    def draw(self, chooser: Chooser) -> Point | None:
        """The point that ``chooser`` comes to; None when it is refused or hopeless."""
        try:
            schedule = self.workload.schedule(chooser)
            check_resources(schedule, self.workload.target)
        except ScheduleError:  # alternatives need not fit each other
            return None
        return _point(self.workload, schedule)

    def at_random(self, chance: random.Random) -> Point | None:
        """A point of a random path, which also tells something about the size of the space."""
        chooser = AtRandom(chance)
        point = self.draw(chooser)
        self._probes.append((math.prod(chooser.branches), point is not None))
        return point

    def points(self) -> Iterator[Point]:
        """All points, one after the other; those that are refused are left out."""
        for _, point in self._paths():
            if point is not None:
                yield point

    def size(self, chance: random.Random, probes: int = 32, most: int = 64) -> SpaceSize:
        """Counted when there are at most ``most`` points, else estimated from random paths, at least ``probes``.

        The mean of the products of the numbers of branches along random paths is an unbiased estimate of the number of
        leaves (Knuth, "Estimating the efficiency of backtrack programs", 1975).
        """
        if math.prod(len(d.alternatives) for d in self.own.made) <= most:
            found = [point is not None for _, point in self._paths()]
            return SpaceSize(len(found), sum(found), exact=True)
        while len(self._probes) < probes:
            self.at_random(chance)
        count = len(self._probes)
        before = sum(leaves for leaves, _ in self._probes) / count
        return SpaceSize(before, sum(leaves for leaves, fine in self._probes if fine) / count)

    def _paths(self) -> Iterator[tuple[list[int], Point | None]]:
        """All paths through the tree of decisions, in lexicographic order."""
        positions: list[int] = []
        while True:
            chooser = Path(positions)
            yield positions, self.draw(chooser)
            positions = [*positions, *(0 for _ in chooser.branches[len(positions) :])]
            while positions and positions[-1] + 1 >= chooser.branches[len(positions) - 1]:
                positions.pop()
            if not positions:
                return
            positions = [*positions[:-1], positions[-1] + 1]


def _point(workload: Workload, schedule: Schedule) -> Point:
    made = tuple(d for d in schedule.decided if len(d.alternatives) > 1)
    decisions = Decisions(tuple(sorted((d.name, d.value) for d in made)))
    return Point(decisions, made, key_of(str(schedule.trace)), schedule, workload)
