"""Cost models: guessing the time of a schedule from its features, learned from those that were measured."""

from __future__ import annotations

import abc
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polycomp.tuner.features import Features

Array = np.ndarray[Any, Any]

_LEAST_LEAF = 3  # measurements in a leaf of a tree
_LEAVES = 12
_TREES = 80
_RIDGE = 1.0
_LEAST_EXPERIENCE = 48  # measurements of other layers from which something can be learned for one's own
_GROWTH = 1.3  # of that number, after which it is learned from again


class CostModel(abc.ABC):
    """Learns the logarithm of times."""

    @property
    def foresees(self) -> bool:
        """Whether it knows something of a layer before that is measured."""
        return False

    @abc.abstractmethod
    def fit(self, features: Sequence[Features], times: Sequence[float]) -> None:
        """Learn from schedules with these features and times in seconds, at least one, which replace those before."""

    @abc.abstractmethod
    def predict(self, features: Sequence[Features]) -> Array:
        """The logarithms of the times that schedules with these features will take."""


class _Regression(CostModel):
    """Learns from a table of features."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def fit(self, features: Sequence[Features], times: Sequence[float]) -> None:
        self._names = sorted({name for each in features for name in each})
        self._fit(self._table(features), np.log(np.asarray(times, np.float64)))

    def predict(self, features: Sequence[Features]) -> Array:
        return self._predict(self._table(features))

    def _table(self, features: Sequence[Features]) -> Array:
        """A row per schedule; NaN where a schedule has no such feature."""
        return np.array([[each.get(name, np.nan) for name in self._names] for each in features], np.float64)

    @abc.abstractmethod
    def _fit(self, table: Array, logs: Array) -> None: ...

    @abc.abstractmethod
    def _predict(self, table: Array) -> Array: ...


class BoostedTrees(_Regression):
    """Gradient-boosted trees of lightgbm (Ke et al., NeurIPS 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self._lightgbm: Any = importlib.import_module("lightgbm")  # optional: pip install polycomp[tune]
        self._booster: Any = None

    def _fit(self, table: Array, logs: Array) -> None:
        settings = {
            "objective": "regression",
            "num_leaves": _LEAVES,
            "min_data_in_leaf": _LEAST_LEAF,
            "min_data_in_bin": 1,
            "learning_rate": 0.1,
            "lambda_l2": 0.1,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": 0,
            "verbose": -1,
        }
        data = self._lightgbm.Dataset(table, logs, params={"verbose": -1})
        self._booster = self._lightgbm.train(settings, data, num_boost_round=_TREES)

    def _predict(self, table: Array) -> Array:
        return np.asarray(self._booster.predict(table))


class Ridge(_Regression):
    """Linear regression on features and their squares, with a penalty on large coefficients."""

    def _fit(self, table: Array, logs: Array) -> None:
        self._mean = np.nanmean(table, axis=0)
        self._scale = np.nanstd(table, axis=0) + 1e-9
        basis = self._basis(table)
        self._level = float(logs.mean())
        gram = basis.T @ basis + _RIDGE * np.eye(basis.shape[1])
        self._coefficients = np.linalg.solve(gram, basis.T @ (logs - self._level))

    def _predict(self, table: Array) -> Array:
        predicted: Array = self._basis(table) @ self._coefficients + self._level
        return predicted

    def _basis(self, table: Array) -> Array:
        normal = np.clip(np.nan_to_num((table - self._mean) / self._scale), -5, 5)
        return np.hstack([normal, normal**2 - 1])


class Experience:
    """What the models of all layers have learned from: the features of schedules, and the logarithms of their times by
    the median of the same layer."""

    def __init__(self) -> None:
        self._of: dict[CostModel, tuple[list[Features], list[float]]] = {}

    def put(self, model: CostModel, features: Sequence[Features], times: Sequence[float]) -> None:
        """What ``model`` knows of its layer by now."""
        logs = np.log(np.asarray(times, np.float64))
        self._of[model] = list(features), (logs - np.median(logs)).tolist()

    def of_others(self, model: CostModel) -> tuple[list[Features], list[float]]:
        """Features and logarithms of layers other than that of ``model``."""
        found = [known for owner, known in self._of.items() if owner is not model]
        return [f for features, _ in found for f in features], [x for _, logs in found for x in logs]


class Experienced(CostModel):
    """A model of what other layers have in common, corrected by one of what this layer does differently: tiles that
    spill and requests that come too late are slow in all of them. (One model for all tasks, as in Zheng et al.,
    "Ansor", OSDI 2020, knows a new layer before it is measured; one for each knows it better afterwards.)"""

    def __init__(self, make: Callable[[], CostModel], experience: Experience) -> None:
        self._general, self._own, self._experience = make(), make(), experience
        self._learned = 0  # measurements that the general model has learned from

    @property
    def foresees(self) -> bool:
        return self._learned > 0

    def fit(self, features: Sequence[Features], times: Sequence[float]) -> None:
        self._experience.put(self, features, times)
        others, logs = self._experience.of_others(self)
        if len(others) >= max(_LEAST_EXPERIENCE, _GROWTH * self._learned):
            self._general.fit(others, np.exp(logs).tolist())
            self._learned = len(others)
        self._own.fit(features, (np.asarray(times) / np.exp(self._expected(features))).tolist())

    def predict(self, features: Sequence[Features]) -> Array:
        predicted: Array = self._expected(features) + self._own.predict(features)
        return predicted

    def _expected(self, features: Sequence[Features]) -> Array:
        return self._general.predict(features) if self.foresees else np.zeros(len(features))


def make_model(experience: Experience | None = None) -> CostModel:
    """Boosted trees where lightgbm is installed, else ridge regression; with ``experience``, one that shares it."""
    kind = BoostedTrees if importlib.util.find_spec("lightgbm") is not None else Ridge
    return kind() if experience is None else Experienced(kind, experience)
