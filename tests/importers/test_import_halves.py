"""Models of float16 and bfloat16: stored in 16 bits, computed in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node

import polycomp
from polycomp.dtypes import DType, as_dtype

Array = np.ndarray[Any, Any]
CODES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
ROUNDING = {"float16": 2e-3, "bfloat16": 1e-2}


def run(nodes: list[Any], code: int, constants: dict[str, Array], **feeds: Array) -> Array:
    """The output ``y``, of the element type ``code``."""
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()} | {"y": code}
    made = model(nodes, {n: a.shape for n, a in feeds.items()}, ("y",), constants, 22, kinds)
    return polycomp.compile(made, threads=1, cache=False, jobs=1).run(feeds)["y"]


def numbers() -> Array:
    """Float32 of all magnitudes, halfway cases, denormals and specials."""
    random = np.random.default_rng(0)
    wide = random.standard_normal(300) * 10.0 ** random.integers(-40, 38, 300)
    bits = random.integers(0, 2**32, 300, dtype=np.uint32)
    ties = (bits & 0xBFFF0000 | 0x8000).view(np.float32)  # of bfloat16; finite
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-40, 65504, 65520, 1e-7]
    return np.concatenate([wide, ties, special]).astype(np.float32)


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_conversions_round_to_nearest_even(kind: str, source: str) -> None:
    x = numbers().astype(source)
    if source == "float64":
        x = x * (1 + 1e-9 * np.random.default_rng(1).standard_normal(x.shape))
    with np.errstate(over="ignore"):
        wanted = x.astype(as_dtype(kind).numpy)
    got = run([node("Cast", ["x"], to=CODES[kind])], CODES[kind], {}, x=x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    if (kind, source) == ("bfloat16", "float64"):  # which the array library rounds twice, to float32 first
        with np.errstate(invalid="ignore"):
            missed, theirs = (np.abs(y.astype(np.float64) - x) for y in (got, wanted))
        assert np.all(missed[np.isfinite(theirs)] <= theirs[np.isfinite(theirs)])
    else:
        finite = ~np.isnan(wanted)
        np.testing.assert_array_equal(got.view(np.uint16)[finite], wanted.view(np.uint16)[finite])
    back = run([node("Cast", ["x"], to=TensorProto.FLOAT)], TensorProto.FLOAT, {}, x=wanted)
    np.testing.assert_array_equal(back, wanted.astype(np.float32))


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 40, 70), (5, 33, 7), (70, 16, 32)])
def test_gemm(kind: str, m: int, k: int, n: int) -> None:
    random = np.random.default_rng(m)
    a, b, c = (random.standard_normal(s).astype(as_dtype(kind).numpy) for s in ((m, k), (n, k), (n,)))
    nodes = [node("Gemm", ["a", "b", "c"], ["t"], "gemm", transB=1), node("Relu", ["t"], ["y"], "relu")]
    got = run(nodes, CODES[kind], {"b": b, "c": c}, a=a)
    wide = [x.astype(np.float32) for x in (a, b, c)]
    wanted = np.maximum(wide[0] @ wide[1].T + wide[2], 0)
    assert got.dtype == as_dtype(kind).numpy
    np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=ROUNDING[kind], atol=1e-3)


@pytest.mark.parametrize("kind", CODES)
def test_convolution_and_softmax(kind: str) -> None:
    random = np.random.default_rng(0)
    x, w = (random.standard_normal(s).astype(as_dtype(kind).numpy) for s in ((1, 16, 7, 6), (32, 16, 3, 3)))
    nodes = [node("Conv", ["x", "w"], ["t"], "conv", pads=[1, 1, 1, 1]), node("Softmax", ["t"], ["y"], "last", axis=1)]
    got = run(nodes, CODES[kind], {"w": w}, x=x).astype(np.float32)
    wide = run(nodes, TensorProto.FLOAT, {"w": w.astype(np.float32)}, x=x.astype(np.float32))
    np.testing.assert_allclose(got, wide, atol={"float16": 5e-3, "bfloat16": 5e-2}[kind])


def test_halves_are_known() -> None:
    assert [d for d in DType if d.is_half] == [DType.FLOAT16, DType.BFLOAT16]
    assert DType.BFLOAT16.is_float and DType.BFLOAT16.bytes == 2 and not DType.BFLOAT16.is_integer
    assert as_dtype(DType.BFLOAT16.numpy) is DType.BFLOAT16
