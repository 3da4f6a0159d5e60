"""What the models of several layers learn from each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import computed
import numpy as np
import planted
import pytest

from polycomp.tuner.model import BoostedTrees, CostModel, Experience, Experienced, Ridge
from polycomp.tuner.search import Search
from polycomp.tuner.session import Budget, Layer, Session, library_first
from polycomp.tuner.space import Space

needs_lightgbm = pytest.mark.skipif(importlib.util.find_spec("lightgbm") is None, reason="lightgbm is not installed")
MODELS = [pytest.param(BoostedTrees, marks=needs_lightgbm), Ridge]


def samples(count: int, slope: float, scale: float, seed: int = 0) -> tuple[list[dict[str, float]], list[float]]:
    """Schedules whose times are told by their feature ``tile``; ``other`` has nothing to do with them."""
    points = np.random.default_rng(seed).uniform(0, 4, (count, 2))
    features = [{"tile": float(tile), "other": float(other)} for tile, other in points]
    return features, [scale * float(np.exp(slope * f["tile"])) for f in features]


def agreement(model: CostModel, features: Sequence[dict[str, float]], times: Sequence[float]) -> float:
    return float(np.corrcoef(model.predict(features), np.log(times))[0, 1])


@pytest.mark.parametrize("kind", MODELS)
def test_a_layer_alone_learns_from_itself(kind: Callable[[], CostModel]) -> None:
    model, plain = Experienced(kind, Experience()), kind()
    for each in (model, plain):
        each.fit(*samples(40, 0.5, 1e-3))
    assert not model.foresees
    np.testing.assert_allclose(model.predict(samples(9, 1, 1)[0]), plain.predict(samples(9, 1, 1)[0]))


@pytest.mark.parametrize("kind", MODELS)
def test_what_other_layers_have_in_common_is_known_beforehand(kind: Callable[[], CostModel]) -> None:
    experience = Experience()
    for number, scale in enumerate((1e-3, 1e-6)):  # layers may be of very different size
        Experienced(kind, experience).fit(*samples(40, 0.5, scale, number))
    new = Experienced(kind, experience)
    new.fit(*samples(1, 0.5, 2.0, 7))
    assert new.foresees
    assert agreement(new, *samples(50, 0.5, 2.0, 8)) > 0.9


@pytest.mark.parametrize("kind", MODELS)
def test_what_a_layer_does_differently_is_learned(kind: Callable[[], CostModel]) -> None:
    experience = Experience()
    Experienced(kind, experience).fit(*samples(60, 0.5, 1e-3))
    odd = Experienced(kind, experience)
    odd.fit(*samples(60, -0.5, 1e-3, 1))
    assert agreement(odd, *samples(50, -0.5, 1e-3, 2)) > 0.9
    predicted = odd.predict(samples(50, -0.5, 1e-3, 2)[0])
    np.testing.assert_allclose(predicted, np.log(samples(50, -0.5, 1e-3, 2)[1]), atol=0.7)


def test_a_few_measurements_of_others_are_no_experience() -> None:
    experience = Experience()
    Experienced(Ridge, experience).fit(*samples(10, 0.5, 1e-3))
    new = Experienced(Ridge, experience)
    new.fit(*samples(2, 0.5, 1e-3))
    assert not new.foresees


def test_the_layers_of_a_session_share_their_experience() -> None:
    searches: list[Search] = []
    make = library_first()

    def make_search(space: Space) -> Search:
        searches.append(make(space))
        return searches[-1]

    layers = [Layer(planted.product(rows=rows), 1, make_search) for rows in (24, 36)]
    Session(layers[:1], computed.Computed(), None).run(Budget(64))
    Session(layers[1:], computed.Computed(), None).run(Budget(12))
    foresees = [search.model.foresees for search in searches]  # type: ignore[attr-defined]
    assert foresees == [False, True]
    assert layers[1].best is not None and layers[1].best <= layers[1].own  # type: ignore[operator]
