"""Accuracy of the math functions: units in the last place against extended precision, over the whole range."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from kernel_runner import TARGETS, Kernel, elementwise

from polycomp.dtypes import DType
from polycomp.expr import Binary, Load, Unary, Var
from polycomp.loops import Buffer

AT = Var("i")
MOST_ULP = 4.0
COUNT = 3000


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x.astype(np.float64)], np.longdouble)


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log1p": np.log1p,
    "tanh": np.tanh, "sigmoid": _sigmoid, "erf": _erf, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x,
}  # fmt: skip
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pow": np.power,
    "atan2": np.arctan2,
    "fmod": np.fmod,
}


def edges(dtype: DType) -> np.ndarray:
    info = np.finfo(dtype.numpy)
    numbers = [
        0,
        1,
        0.5,
        2,
        3,
        1.5,
        1e-30,
        1e30,
        math.pi,
        math.pi / 2,
        1e6,
        1e7,
        88.7,
        88.73,
        103.9,
        709.7,
        710.2,
        710.48,
        745,
    ]
    special = [math.inf, math.nan, info.max, info.tiny, info.smallest_subnormal, 2.0**24 + 1, 2.0**53, 89.4, 89.42]
    with np.errstate(over="ignore"):
        positive = np.array(numbers + special, np.float64).astype(dtype.numpy)
    return np.concatenate([positive, -positive, np.nextafter(positive, dtype.numpy.type(0))])


def arguments(dtype: DType, seed: int) -> np.ndarray:
    """Any bit pattern, the ranges where functions bend, the neighbourhoods of 0 and 1, and the edges."""
    random = np.random.default_rng(seed)
    unsigned = np.uint32 if dtype is DType.FLOAT32 else np.uint64
    bits = random.integers(0, np.iinfo(unsigned).max, COUNT, unsigned, endpoint=True).view(dtype.numpy)
    parts = [
        random.normal(size=COUNT), random.uniform(-1, 1, COUNT), random.uniform(-110, 110, COUNT),
        random.uniform(-750, 750, COUNT), 10 ** random.uniform(-12, 7, COUNT),
        1 + random.normal(size=COUNT) * 10 ** random.uniform(-8, -1, COUNT),
    ]  # fmt: skip
    return np.concatenate([bits, *(p.astype(dtype.numpy) for p in parts), edges(dtype)])


def ulps(result: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance from ``exact`` (extended precision) in units in the last place; 0 where the rounded values agree."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(result.dtype)
        finite = np.where(np.isfinite(rounded), rounded, 1)
        distance = np.abs(result.astype(np.longdouble) - exact) / np.spacing(np.abs(finite)).astype(np.longdouble)
    same = (np.isnan(result) & np.isnan(rounded)) | (result == rounded)
    comparable = np.isfinite(result) & np.isfinite(rounded)
    return np.where(same, 0, np.where(comparable, distance, np.inf)).astype(np.float64)


def assert_accurate(result: np.ndarray, exact: np.ndarray, *operands: np.ndarray) -> None:
    errors = ulps(result, exact)
    worst = int(np.argmax(errors))
    detail = f"{errors[worst]:.2f} ulp at {[x[worst] for x in operands]}: {result[worst]!r}, not {exact[worst]!r}"
    assert errors[worst] <= MOST_ULP, detail


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="the reference needs extended precision")
@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
@pytest.mark.parametrize("name", sorted(UNARY))
def test_unary(name: str, dtype: DType, target: str) -> None:
    values = arguments(dtype, 1)
    x, y = Buffer("x", dtype, values.shape), Buffer("y", dtype, values.shape)
    kernel = Kernel(elementwise("kernel", [x], y, Unary(name, Load(x, (AT,))), AT, 64 // dtype.bytes), TARGETS[target])
    (result,), _ = kernel(values)
    with np.errstate(all="ignore"):
        exact = UNARY[name](values.astype(np.longdouble))
    assert_accurate(result, exact, values)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="the reference needs extended precision")
@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
@pytest.mark.parametrize("name", sorted(BINARY))
def test_binary(name: str, dtype: DType, target: str) -> None:
    random = np.random.default_rng(2)
    pairs = np.array(list(itertools.product(edges(dtype)[:56:2], edges(dtype)[:56])), dtype.numpy)
    a, b = arguments(dtype, 3), random.permutation(arguments(dtype, 4))
    whole = random.integers(-30, 30, COUNT).astype(dtype.numpy)
    x_values = np.concatenate([a, np.abs(a[:COUNT]), a[-COUNT:], np.abs(a[COUNT : 2 * COUNT]), pairs[:, 0]])
    y_values = np.concatenate([b, b[:COUNT], whole, random.normal(size=COUNT).astype(dtype.numpy) * 20, pairs[:, 1]])
    x, y = Buffer("x", dtype, x_values.shape), Buffer("y", dtype, x_values.shape)
    z = Buffer("z", dtype, x_values.shape)
    value = Binary(name, Load(x, (AT,)), Load(y, (AT,)))
    (result,), _ = Kernel(elementwise("kernel", [x, y], z, value, AT, 64 // dtype.bytes), TARGETS[target])(
        x_values, y_values
    )
    with np.errstate(all="ignore"):
        exact = BINARY[name](x_values.astype(np.longdouble), y_values.astype(np.longdouble))
    assert_accurate(result, exact, x_values, y_values)


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 32, 48])
def test_any_number_of_lanes_gives_the_same(lanes: int) -> None:
    values = arguments(DType.FLOAT32, 5)[:500]
    x, y = Buffer("x", DType.FLOAT32, values.shape), Buffer("y", DType.FLOAT32, values.shape)
    for name in ("exp", "sin", "erf", "log1p"):
        e = Unary(name, Load(x, (AT,)))
        one, many = (Kernel(elementwise("kernel", [x], y, e, AT, n))(values)[0][0] for n in (16, lanes))
        np.testing.assert_array_equal(one, many)
