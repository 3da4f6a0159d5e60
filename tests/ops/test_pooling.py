"""Pooling against onnxruntime, with all of ceil_mode, dilations, uneven padding and count_include_pad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_oracle import array_call, assert_close, make_call, onnxruntime_result, ours, random

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Var
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate

EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def pools(draw):
    """Attributes of a pool of 1 to 3 dimensions whose paddings are below its kernel, and sizes that it fits."""
    rank = draw(st.integers(1, 3))
    per_dimension = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel, strides, dilations = per_dimension(1, 4), per_dimension(1, 3), per_dimension(1, 2)
    pads = [draw(st.integers(0, min(2, k - 1))) for k in (*kernel, *kernel)]
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilations, strict=True)]
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    return sizes, attributes | {"ceil_mode": draw(st.integers(0, 1))}


@EXAMPLES
@given(pools(), st.integers(1, 3))
def test_max_pool(pool, channels):
    sizes, attributes = pool
    x = random(2, channels, *sizes)
    assert_close(ours("MaxPool", x, **attributes), onnxruntime_result("MaxPool", x, **attributes))


@EXAMPLES
@given(pools(), st.integers(0, 1))
def test_average_pool(pool, count_include_pad):
    sizes, attributes = pool
    attributes["count_include_pad"] = count_include_pad
    x = random(1, 2, *sizes)
    assert_close(ours("AveragePool", x, **attributes), onnxruntime_result("AveragePool", x, **attributes))


@EXAMPLES
@given(pools(), st.integers(1, 3))
def test_lp_pool(pool, p):
    sizes, attributes = pool
    attributes["p"] = p
    x = random(1, 2, *sizes)
    assert_close(ours("LpPool", x, **attributes), onnxruntime_result("LpPool", x, **attributes))


@pytest.mark.parametrize("shape", [(1, 3, 1), (2, 5, 7, 7), (1, 2, 3, 4, 5)])
def test_global_pools(shape):
    x, axes = random(*shape), tuple(range(2, len(shape)))
    assert_close(ours("GlobalAveragePool", x), x.mean(axes, keepdims=True))
    assert_close(ours("GlobalMaxPool", x), x.max(axes, keepdims=True))


def test_max_pool_of_integers():
    x = random(1, 2, 5, 5, dtype="int8")
    got = ours("MaxPool", x, kernel_shape=(2, 2), pads=(1, 1, 0, 0))
    assert (got == onnxruntime_result("MaxPool", x, kernel_shape=(2, 2), pads=(1, 1, 0, 0))).all()


def test_nan_wins_in_max_pool():
    x = random(1, 1, 4)
    x[0, 0, 1] = np.nan
    assert np.isnan(ours("MaxPool", x, kernel_shape=(2,))[0, 0]).tolist() == [True, True, False]


def test_symbolic_global_average():
    size = Var("size")
    x = placeholder((1, 2, size, size), "float16", "x")
    call = make_call("GlobalAveragePool", [TensorType(x.dtype, x.shape)])
    data = random(1, 2, 5, 5, dtype="float16")
    (got,) = evaluate(operators()["GlobalAveragePool"].lower(call, [x]), {x: data}, {size: 5})
    assert got.dtype == np.float16
    assert_close(got.astype(np.float32), data.astype(np.float32).mean((2, 3), keepdims=True), 1e-3)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_symbolic_pool(op, ceil_mode):
    size = Var("size")
    attributes = {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1), "ceil_mode": ceil_mode}
    x = placeholder((1, 2, size), "float32", "x")
    call = make_call(op, [TensorType(x.dtype, x.shape)], **attributes)
    outputs = operators()[op].lower(call, [x])
    for n in (3, 4, 7, 8):
        data = random(1, 2, n)
        (got,) = evaluate(outputs, {x: data}, {size: n})
        assert_close(got, onnxruntime_result(op, data, **attributes))


def test_average_of_integers_is_refused():
    call, _ = array_call("AveragePool", [random(1, 2, 4, dtype="int32")], kernel_shape=(2,))
    with pytest.raises(DTypeError, match="takes floats"):
        operators()["AveragePool"].infer(call)


def test_wrong_rank_is_named():
    call = make_call("MaxPool", [TensorType(DType.FLOAT32, (1, 2, 4))], kernel_shape=(2, 2))
    with pytest.raises(ShapeError, match="the input has 3 dimensions, but 4 are needed"):
        operators()["MaxPool"].infer(call)
