"""Reductions, ArgMax and ArgMin, CumSum and Softmax against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_close, data, make_call, run, run_all

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Var
from polycomp.graph import TensorType
from polycomp.ops import operators


def _log_sum_exp(x, axis, keepdims):
    largest = x.max(axis=axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0)
    total = np.log(np.exp(x - shift).sum(axis=axis, keepdims=True)) + shift
    return total if keepdims else total.squeeze(axis)


NUMPY = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceMax": lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims, initial=-np.inf),
    "ReduceMin": lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims, initial=np.inf),
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
}

rank3 = st.tuples(*(st.sampled_from([0, 1, 2, 5, 7]) for _ in range(3)))
some_axes = st.sampled_from([(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2), ()])


FLOATS = st.sampled_from(["float32", "float16", "float64"])


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@settings(derandomize=True, max_examples=120, deadline=None)
@given(rank3, some_axes, st.booleans(), st.sampled_from(sorted(NUMPY)), FLOATS)
def test_like_numpy(shape, axes, keepdims, op, dtype):
    x = data(shape, dtype, low=0.1 if op == "ReduceLogSum" else -2)
    with np.errstate(all="ignore"):
        want = NUMPY[op](x.astype(np.float64), axis=axes, keepdims=keepdims)
        want = np.asarray(want).astype(dtype)
    assert_close(run(op, x, axes=axes, keepdims=keepdims), want, scale=8)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8"])
def test_integers(dtype):
    x = data((3, 4), dtype) + np.ones((), dtype)
    options = {"axes": (1,), "keepdims": False}
    for op, function in (("ReduceSum", np.sum), ("ReduceProd", np.prod)):
        np.testing.assert_array_equal(run(op, x, **options), function(x, axis=1, dtype=dtype))
    np.testing.assert_array_equal(run("ReduceMax", x, **options), x.max(1))
    np.testing.assert_array_equal(run("ReduceMin", x, **options), x.min(1))
    np.testing.assert_array_equal(run("ReduceMean", x, **options), np.trunc(x.mean(1)).astype(dtype))
    np.testing.assert_array_equal(run("ReduceL1", x, **options), np.abs(x).sum(1, dtype=dtype))
    norm = np.trunc(np.sqrt((x.astype(float) ** 2).sum(1))).astype(dtype)
    np.testing.assert_array_equal(run("ReduceL2", x, **options), norm)


def test_bool_extremes():
    x = np.array([[True, False], [True, True]])
    assert run("ReduceMax", x, axes=(1,), keepdims=False).tolist() == [True, True]
    assert run("ReduceMin", x, axes=(1,), keepdims=False).tolist() == [False, True]


def test_log_sum_exp_of_extremes():
    x = np.array([[1000, 1000], [-np.inf, -np.inf], [np.inf, 1], [np.nan, 1]], np.float32)
    got = run("ReduceLogSumExp", x, axes=(1,), keepdims=True)[:, 0]
    np.testing.assert_allclose(got, [1000 + np.log(2), -np.inf, np.inf, np.nan], rtol=1e-6)


def test_float16_is_accumulated_in_float32():
    x = np.full((5000,), 0.1, np.float16)
    np.testing.assert_allclose(run("ReduceSum", x, axes=(0,), keepdims=False), 5000 * float(np.float16(0.1)), rtol=1e-3)


def test_maximum_propagates_nan():
    x = np.array([1, np.nan, 3], np.float32)
    assert np.isnan(run("ReduceMax", x, axes=(0,), keepdims=False))


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.tuples(*(st.sampled_from([1, 2, 5, 7]) for _ in range(3))),
    st.integers(-3, 2),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["float32", "int32", "uint8"]),
)
def test_arg_extremes(shape, axis, keepdims, last, dtype):
    x = data(shape, dtype)
    x = np.round(x) if dtype == "float32" else x // 4
    for op, function in (("ArgMax", np.argmax), ("ArgMin", np.argmin)):
        if last:
            want = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=keepdims)
        else:
            want = function(x, axis=axis, keepdims=keepdims)
        got = run(op, x, axis=axis, keepdims=keepdims, select_last_index=int(last))
        np.testing.assert_array_equal(got, want)


def test_arg_extremes_take_nan_for_the_extreme():
    x = np.array([1, np.nan, 7, np.nan], np.float32)
    for op in ("ArgMax", "ArgMin"):
        assert run(op, x, axis=0, keepdims=False) == 1
        assert run(op, x, axis=0, keepdims=False, select_last_index=1) == 3


@pytest.mark.parametrize("n", [0, 1, 5, 128, 129, 200, 1000])
@pytest.mark.parametrize(("exclusive", "reverse"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_cumulative_sum(n, exclusive, reverse):
    x = data((2, n, 3), "int64")
    turned = np.flip(x, 1) if reverse else x
    want = np.cumsum(turned, axis=1)
    want = want - turned if exclusive else want
    want = np.flip(want, 1) if reverse else want
    np.testing.assert_array_equal(run("CumSum", x, axis=1, exclusive=exclusive, reverse=reverse), want)


def test_cumulative_sum_of_symbolic_length():
    n = Var("n")
    x = data((77,), "float16")
    got = run_all("CumSum", [x], types=[TensorType(DType.FLOAT16, (n,))], bound={n: 77}, axis=0)[0]
    np.testing.assert_allclose(got, np.cumsum(x.astype(float)), atol=0.02)


def softmax(x, axis):
    powers = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=axis, keepdims=True)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(rank3, st.integers(-3, 2), st.sampled_from(["float32", "float16"]))
def test_softmax(shape, axis, dtype):
    x = data(shape, dtype) * np.asarray(20, dtype)
    want = softmax(x.astype(np.float64), axis)
    assert_close(run("Softmax", x, axis=axis), want.astype(dtype))
    with np.errstate(divide="ignore"):
        logarithm = x - x.max(axis, keepdims=True, initial=-np.inf).astype(np.float64)
        logarithm -= np.log(np.exp(logarithm).sum(axis, keepdims=True))
    assert_close(run("LogSoftmax", x, axis=axis), logarithm.astype(dtype))


def test_softmax_of_large_values_and_masked_elements():
    x = np.array([[1e30, -1e30, 1e30], [-np.inf, 0, 0]], np.float32)
    np.testing.assert_allclose(run("Softmax", x, axis=1), [[0.5, 0, 0.5], [0, 0.5, 0.5]])


def test_symbolic_mean():
    n = Var("n")
    x = data((3, 9))
    types = [TensorType(DType.FLOAT32, (3, n))]
    got = run_all("ReduceMean", [x], types=types, bound={n: 9}, axes=(1,), keepdims=True)[0]
    assert_close(got, x.mean(1, keepdims=True), scale=4)


def test_messages():
    f = DType.FLOAT32
    with pytest.raises(ShapeError, match=r"ReduceSum 'node': the axes \[2\] are not different dimensions out of 2"):
        operators()["ReduceSum"].infer(make_call("ReduceSum", [TensorType(f, (2, 3))], {"axes": (2,)}))
    with pytest.raises(ShapeError, match="axis 5 does not exist in 1 dimensions"):
        operators()["Softmax"].infer(make_call("Softmax", [TensorType(f, (2,))], {"axis": 5}))
    with pytest.raises(ShapeError, match="dimension 0 is empty"):
        operators()["ArgMax"].infer(make_call("ArgMax", [TensorType(f, (0,))], {"axis": 0}))
    with pytest.raises(DTypeError, match="element type bool is not among"):
        operators()["ReduceSum"].infer(make_call("ReduceSum", [TensorType(DType.BOOL, (2,))], {"axes": (0,)}))
