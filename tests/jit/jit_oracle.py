"""Comparing a jit function with the Python function that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import polycomp as pc
from polycomp.functions.pytree import flatten

Array = np.ndarray[Any, Any]

_TOLERANCE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-9}


def check(function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Both give the same structure of arrays, with the same dtypes, shapes and (nearly) values."""
    wanted: list[Any] = []
    found: list[Any] = []
    with np.errstate(all="ignore"):
        wanted_structure = flatten(function(*args), wanted)
    assert flatten(pc.jit(**options)(function)(*args), found) == wanted_structure
    for got, want in zip(found, wanted, strict=True):
        compare(np.asarray(got), np.asarray(want))


def compare(found: Array, wanted: Array) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    tolerance = _TOLERANCE.get(found.dtype.name, 0)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    low = 0 if dtype.startswith("u") else -40
    return random.integers(low, 41, shape).astype(dtype)
