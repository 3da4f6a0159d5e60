"""Cost models: guessing the time of a schedule from its features, learned from those that were measured."""

from __future__ import annotations

import abc
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from polycomp.tuner.features import Features

Array = np.ndarray[Any, Any]

_LEAST_LEAF = 3  # measurements in a leaf of a tree
_LEAVES = 12
_TREES = 80
_RIDGE = 1.0


class CostModel(abc.ABC):
    """Learns the logarithm of times."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def fit(self, features: Sequence[Features], times: Sequence[float]) -> None:
        """Learn from schedules with these features and times in seconds, which replace those learned before."""
        self._names = sorted({name for each in features for name in each})
        self._fit(self._table(features), np.log(np.asarray(times, np.float64)))

    def predict(self, features: Sequence[Features]) -> Array:
        """The logarithms of the times that schedules with these features will take."""
        return self._predict(self._table(features))

    def _table(self, features: Sequence[Features]) -> Array:
        """A row per schedule; NaN where a schedule has no such feature."""
        return np.array([[each.get(name, np.nan) for name in self._names] for each in features], np.float64)

    @abc.abstractmethod
    def _fit(self, table: Array, logs: Array) -> None: ...

    @abc.abstractmethod
    def _predict(self, table: Array) -> Array: ...


class BoostedTrees(CostModel):
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


class Ridge(CostModel):
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


def make_model() -> CostModel:
    """Boosted trees where lightgbm is installed, else ridge regression."""
    return BoostedTrees() if importlib.util.find_spec("lightgbm") is not None else Ridge()
