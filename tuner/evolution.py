"""Evolutionary search: changes and crossings of the best, ranked by a cost model where there is one."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Iterator, Sequence

from polycomp.decisions import Value
from polycomp.tuner.choosers import Inherited
from polycomp.tuner.model import CostModel
from polycomp.tuner.search import Search
from polycomp.tuner.space import Point, Space

_PARENTS_SHARE = 0.2  # of the first points that a model has foreseen: parents that are not good yet teach little
_FAILED = 4.0  # how many times longer than the slowest a failure is taken to be, by the model


@dataclasses.dataclass(frozen=True)
class EvolutionSettings:
    """``parents`` are the best so many; the first ``beginning`` points are random ones where seeds do not fill them.

    Of all proposals a ``random_share`` is of random paths. With a model, ``offspring`` times as many as wanted are
    made, of which a ``foreign_share`` of random paths, and the best by prediction are taken.
    """

    parents: int = 6
    beginning: int = 8
    random_share: float = 0.12
    crossings: float = 0.25
    offspring: int = 4
    foreign_share: float = 0.4


class EvolutionarySearch(Search):
    """Measured points are parents of new ones, which inherit decisions and change a few of them."""

    def __init__(
        self,
        space: Space,
        seeds: Iterable[Point],
        chance: random.Random,
        model: CostModel | None = None,
        settings: EvolutionSettings | None = None,
    ) -> None:
        super().__init__(space, seeds, chance)
        self.model = model
        self.settings = settings or EvolutionSettings()

    def _propose(self, count: int) -> Sequence[Point]:
        model, beginning = self.model, len(self.measured) < self.settings.beginning
        if model is not None and self.measured:
            self._teach(model)
            foreign_share = 1 - _PARENTS_SHARE if beginning else self.settings.foreign_share
            if model.foresees or not beginning:
                return self._best_predicted(model, count, foreign_share)
        return self._new_points(self._draws(0.5 if beginning else self.settings.random_share), count)

    def _teach(self, model: CostModel) -> None:
        slowest = max((s for s, _ in self.measured if s < math.inf), default=1.0)
        times = [s if s < math.inf else _FAILED * slowest for s, _ in self.measured]
        model.fit([p.features for _, p in self.measured], times)

    def _best_predicted(self, model: CostModel, count: int, foreign_share: float) -> Sequence[Point]:
        """The most promising of many offspring and points of random paths, and some at random."""
        by_chance = sum(self.chance.random() < self.settings.random_share for _ in range(count))
        known = set(self._known)
        candidates = self._new_points(self._draws(foreign_share), count * self.settings.offspring)
        if not candidates:
            return []
        predicted = model.predict([p.features for p in candidates])
        self.predicted |= {p.loops: math.exp(log) for p, log in zip(candidates, predicted, strict=True)}
        ranked = [candidates[i] for i in predicted.argsort(kind="stable")]
        rest = ranked[count - by_chance :]
        chosen = [*ranked[: count - by_chance], *self.chance.sample(rest, min(by_chance, len(rest)))]
        self._known = known | {p.loops for p in chosen}  # the others may come again
        return chosen

    def _draws(self, random_share: float) -> Iterator[Point | None]:
        while True:
            fine = sorted((item for item in self.measured if item[0] < math.inf), key=lambda item: item[0])
            parents = [point for _, point in fine[: self.settings.parents]]
            if not parents or self.chance.random() < random_share:
                yield self.space.at_random(self.chance)
            else:
                yield self._child(parents)

    def _child(self, parents: Sequence[Point]) -> Point | None:
        """A child of a parent, the better the more likely, or of two, with some decisions changed."""
        first = min(self.chance.choice(range(len(parents))) for _ in range(2))
        chosen = [parents[first]]
        if len(parents) > 1 and self.chance.random() < self.settings.crossings:
            chosen.append(self.chance.choice([p for p in parents if p is not chosen[0]]))
        decided: list[dict[str, Value]] = [dict(p.decisions.values) for p in chosen]
        changes = 1 + (self.chance.random() < 0.5) + (self.chance.random() < 0.2)
        return self.space.draw(Inherited(self.chance, decided, self._varied(chosen[0], changes)))

    def _varied(self, parent: Point, changes: int) -> set[str]:
        """Names of up to so many decisions, those with many alternatives rather than others."""
        names = [d.name for d in parent.made]
        weights = [math.log2(len(d.alternatives)) for d in parent.made]
        return set(self.chance.choices(names, weights, k=changes)) if names else set()
