"""Normalisations against numpy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_close, data, make_call, run, run_all

from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.expr import Var
from polycomp.graph import TensorType
from polycomp.ops import operators


def standardized(x, axes, epsilon):
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def per_channel(v, rank):
    return v.astype(np.float64).reshape(1, -1, *(1,) * (rank - 2))


ranks = st.sampled_from([(2, 3, 4), (1, 6, 5, 7), (2, 5), (3, 1, 1)])
floats = st.sampled_from(["float32", "float16", "float64"])


@settings(derandomize=True, max_examples=30, deadline=None)
@given(ranks, st.integers(-2, 1), floats, st.booleans())
def test_layer_normalization(shape, axis, dtype, with_bias):
    x = data(shape, dtype) + np.asarray(5, dtype)
    start = axis % len(shape)
    scale, bias = data(shape[start:], dtype, 1), data(shape[start:], dtype, 2)
    want = standardized(x, tuple(range(start, len(shape))), 1e-3) * scale + (bias if with_bias else 0)
    operands = [x, scale, bias] if with_bias else [x, scale]
    assert_close(run("LayerNormalization", *operands, axis=axis, epsilon=1e-3), want.astype(dtype), scale=4)


def test_layer_normalization_is_accurate_far_from_zero():
    x = data((2, 256)) + np.float32(10000)
    want = standardized(x, (1,), 1e-5).astype(np.float32)
    got = run("LayerNormalization", x, np.ones(256, np.float32), axis=-1, epsilon=1e-5)
    np.testing.assert_allclose(got, want, atol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rms_normalization(dtype):
    x, scale = data((2, 3, 8), dtype), data((8,), dtype, 1)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * scale
    assert_close(run("RMSNormalization", x, scale, axis=-1, epsilon=1e-6), want.astype(dtype))


@pytest.mark.parametrize("shape", [(2, 4, 5), (1, 6, 3, 7), (2, 2, 2, 3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_instance_group_and_batch_normalization(shape, dtype):
    c, rank = shape[1], len(shape)
    x, scale, bias = data(shape, dtype), data((c,), dtype, 1), data((c,), dtype, 2)
    affine = [per_channel(v, rank) for v in (scale, bias)]
    spatial = tuple(range(2, rank))
    want = standardized(x, spatial, 1e-5) * affine[0] + affine[1]
    assert_close(run("InstanceNormalization", x, scale, bias, epsilon=1e-5), want.astype(dtype), scale=3)
    for groups in (1, 2, c):
        grouped = x.reshape(shape[0], groups, -1)
        want = standardized(grouped, (2,), 1e-5).reshape(shape) * affine[0] + affine[1]
        got = run("GroupNormalization", x, scale, bias, num_groups=groups, epsilon=1e-5)
        assert_close(got, want.astype(dtype), scale=3)
    mean, variance = data((c,), "float32", 3), np.abs(data((c,), "float32", 4))
    factor = affine[0] / np.sqrt(per_channel(variance, rank) + 1e-5)
    want = (x.astype(np.float64) - per_channel(mean, rank)) * factor + affine[1]
    assert_close(run("BatchNormalization", x, scale, bias, mean, variance, epsilon=1e-5), want.astype(dtype), scale=50)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("beta", [0.5, 0.6, 0.75])
def test_lrn(size, beta):
    x = data((2, 7, 3, 2))
    square_sum = np.zeros(x.shape)
    for c in range(7):
        low, high = max(0, c - (size - 1) // 2), min(6, c + size // 2)
        square_sum[:, c] = (x[:, low : high + 1].astype(np.float64) ** 2).sum(1)
    want = x / (1.5 + 0.02 / size * square_sum) ** beta
    got = run("LRN", x, size=size, alpha=0.02, beta=beta, bias=1.5)
    assert_close(got, want.astype(np.float32))


def test_mean_variance_normalization():
    x = data((2, 3, 4, 5))
    want = standardized(x, (0, 2, 3), 0).astype(np.float32)
    assert_close(run("MeanVarianceNormalization", x, axes=(0, 2, 3)), want)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0])
def test_lp_normalization(p, axis):
    x = data((3, 4))
    x[0] = 0
    x[:, 1] = 0
    norm = np.linalg.norm(x.astype(np.float64), ord=p, axis=axis, keepdims=True)
    want = np.divide(x, norm, out=np.zeros(x.shape), where=norm != 0)
    assert_close(run("LpNormalization", x, axis=axis, p=p), want.astype(np.float32))


def test_symbolic_batch():
    b = Var("b")
    x, scale = data((3, 8)), data((8,), seed=1)
    types = [TensorType(DType.FLOAT32, (b, 8)), TensorType(DType.FLOAT32, (8,))]
    got = run_all("LayerNormalization", [x, scale], types=types, bound={b: 3}, axis=-1, epsilon=1e-5)[0]
    assert_close(got, (standardized(x, (1,), 1e-5) * scale).astype(np.float32))


def test_messages():
    f = DType.FLOAT32
    x, v = TensorType(f, (1, 6, 4)), TensorType(f, (5,))
    with pytest.raises(ShapeError, match="one element for each of 6 channels"):
        operators()["BatchNormalization"].infer(make_call("BatchNormalization", [x, v, v, v, v], {}))
    with pytest.raises(ShapeError, match="6 channels cannot be divided into 4 groups"):
        operators()["GroupNormalization"].infer(make_call("GroupNormalization", [x, v, v], {"num_groups": 4}))
    with pytest.raises(ShapeError, match="cannot be broadcast"):
        operators()["LayerNormalization"].infer(make_call("LayerNormalization", [x, v], {"axis": -1}))
