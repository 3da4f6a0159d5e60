"""The search, on times that are computed: it is deterministic, finds what is there, and never asks twice."""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Callable

import computed
import numpy as np
import planted
import pytest

from polycomp.decisions import Decisions
from polycomp.tuner.evolution import EvolutionarySearch
from polycomp.tuner.model import BoostedTrees, CostModel, Ridge
from polycomp.tuner.search import ExhaustiveSearch, RandomSearch, Search
from polycomp.tuner.session import Budget, Layer, MakeSearch, Session
from polycomp.tuner.space import Space

needs_lightgbm = pytest.mark.skipif(importlib.util.find_spec("lightgbm") is None, reason="lightgbm is not installed")
MODELS = [pytest.param(BoostedTrees, marks=needs_lightgbm), Ridge]


def tuned(make_search: MakeSearch, trials: int, **options: object) -> tuple[Layer, computed.Computed]:
    layer, measurer = Layer(planted.product(), 1, make_search), computed.Computed(**options)  # type: ignore[arg-type]
    Session([layer], measurer, None).run(Budget(trials))
    return layer, measurer


def evolution(model: Callable[[], CostModel] | None, seed: int = 0) -> MakeSearch:
    def make(space: Space) -> Search:
        return EvolutionarySearch(space, [space.naive()], random.Random(seed), model() if model else None)

    return make


def random_search(seed: int) -> MakeSearch:
    return lambda space: RandomSearch(space, [space.naive()], random.Random(seed))


@pytest.mark.parametrize("model", [None, *MODELS])
def test_the_same_seed_asks_the_same(model: Callable[[], CostModel] | None) -> None:
    runs = [[t.decisions for t in tuned(evolution(model), 24)[1].seen] for _ in range(2)]
    assert runs[0] == runs[1]
    other = [t.decisions for t in tuned(evolution(model, seed=1), 24)[1].seen]
    assert other[0] == runs[0][0]
    assert other != runs[0]


def test_no_loops_are_measured_twice() -> None:
    layer, measurer = tuned(evolution(Ridge), 48)
    loops = [point.loops for _, point in layer.search.measured]
    assert len(set(loops)) == len(loops) == len(measurer.seen) == 48


@pytest.mark.parametrize("model", MODELS)
def test_a_model_finds_more_than_chance(model: Callable[[], CostModel]) -> None:
    learned = [tuned(evolution(model, seed), 40)[0].best for seed in range(2)]
    chance = [tuned(random_search(seed), 40)[0].best for seed in range(2)]
    assert np.mean(learned) < np.mean(chance)  # type: ignore[arg-type]
    assert min(learned) < 1.2e-3  # type: ignore[type-var, operator]


def test_failures_are_no_parents() -> None:
    def seconds(decisions: Decisions) -> float | None:
        return None if decisions.get("t2.pack") else computed.landscape(decisions)

    layer, _ = tuned(evolution(None), 32, seconds=seconds)
    assert layer.search.best is not None
    assert not layer.search.best[1].decisions.get("t2.pack")
    assert layer.trials == 32


def test_outcomes_may_come_in_any_order() -> None:
    runs = [tuned(evolution(None), 20, turn=turn)[0].best for turn in (1, -1)]
    assert all(best is not None and best < 3e-3 for best in runs)


def test_exhaustive_search_sees_every_schedule() -> None:
    space = Space(planted.product(rows=2, columns=8, depth=4))
    search = ExhaustiveSearch(space, [], random.Random(0))
    found = list(itertools.chain.from_iterable(iter(lambda: search.propose(16), [])))
    size = space.size(random.Random(0), most=10**6)
    assert size.exact
    assert 1 < len(found) <= size.after <= size.before
    assert space.own.loops in {p.loops for p in found}
    assert {p.loops for p in (space.at_random(random.Random(i)) for i in range(20)) if p} <= {p.loops for p in found}


def test_the_estimate_of_the_size_is_near_the_count() -> None:
    space = Space(planted.product(rows=5, columns=8, depth=4))
    exact = space.size(random.Random(0), most=10**6)
    estimate = Space(space.workload).size(random.Random(0), probes=100, most=0)
    assert exact.exact
    assert not estimate.exact
    assert estimate.before == pytest.approx(exact.before, rel=0.3)


def test_an_exhausted_space_ends_the_session() -> None:
    layer = Layer(planted.product(rows=2, columns=8, depth=4), 1, evolution(None))
    session = Session([layer], computed.Computed(), None)
    session.run(Budget(10**6))
    assert layer.standing.exhausted
    assert session.trials == layer.trials < 10**4


def test_trials_go_to_the_layers_that_take_the_time() -> None:
    small, large = planted.product(12, 40, 16), planted.product(24, 40, 16)
    layers = [Layer(small, 1, evolution(None)), Layer(large, 50, evolution(None))]
    Session(layers, computed.Computed(), None).run(Budget(60))
    assert layers[0].trials >= 2
    assert layers[1].trials > 3 * layers[0].trials
