"""The numpy evaluator of tensor expressions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycomp import te
from polycomp.errors import ExecutionError, InputError, ShapeError
from polycomp.expr import CheckedIndex, Var, binary, cast, const, select, wrap
from polycomp.te import evaluate as evaluator
from polycomp.te.evaluate import evaluate

RNG = np.random.default_rng(7)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.sampled_from([0, 1, 2, 5, 7]), st.sampled_from([0, 1, 3]), st.sampled_from([1, 4]))
def test_matmul(m, k, n):
    a, b = te.placeholder((2, m, k)), te.placeholder((k, n))
    r = te.reduce_axis(k, "r")
    c = te.compute((2, m, n), lambda t, i, j: te.sum(a[t, i, r] * b[r, j], r))
    x, y = floats(2, m, k), floats(k, n)
    np.testing.assert_allclose(evaluate([c], {a: x, b: y})[0], x @ y, rtol=1e-5, atol=1e-6)


def test_product_with_repeated_and_own_reduction_axes():
    a, b = te.placeholder((3, 4)), te.placeholder((5,))
    k, u, v = te.reduce_axis(4, "k"), te.reduce_axis(5, "u"), te.reduce_axis(6, "v")
    c = te.compute((3, 2), lambda i, j: te.sum(a[i, k] * b[u], (k, u, v)))
    x, y = floats(3, 4), floats(5)
    want = np.broadcast_to((x.sum(1) * y.sum() * 6)[:, None], (3, 2))
    np.testing.assert_allclose(evaluate([c], {a: x, b: y})[0], want, rtol=1e-5)


def test_padded_convolution_reads_nothing_outside():
    x, w = te.placeholder((6,)), te.placeholder((3,))
    padded = te.compute((8,), lambda i: select((i >= 1) & (i < 7), x[i - 1], const(0, "float32")))
    k = te.reduce_axis(3, "k")
    y = te.compute((6,), lambda i: te.sum(padded[i + k] * w[k], k))
    a, b = floats(6), floats(3)
    want = np.convolve(a, b[::-1], "same")
    np.testing.assert_allclose(evaluate([y], {x: a, w: b})[0], want, rtol=1e-5, atol=1e-6)


def test_an_unguarded_load_outside_is_an_error():
    x = te.placeholder((4,))
    y = te.compute((4,), lambda i: x[i + 1])
    with pytest.raises(ExecutionError, match="lies outside of"):
        evaluate([y], {x: floats(4)})


def test_checked_index():
    x, i = te.placeholder((4,)), te.placeholder((2,), "int64")
    y = te.compute((2,), lambda j: x[CheckedIndex(i[j], wrap(4))])
    a = floats(4)
    np.testing.assert_array_equal(evaluate([y], {x: a, i: np.array([3, 0])})[0], a[[3, 0]])
    with pytest.raises(ExecutionError, match="outside of its tensor"):
        evaluate([y], {x: a, i: np.array([4, 0])})


def test_symbolic_sizes_and_missing_values():
    n = Var("n")
    x = te.placeholder((n, 2), name="x")
    y = te.compute((n * 2,), lambda i: x[i // 2, i % 2] * cast("float32", n))
    a = floats(3, 2)
    np.testing.assert_allclose(evaluate([y], {x: a}, {n: 3})[0], a.reshape(-1) * 3, rtol=1e-6)
    with pytest.raises(InputError, match="'n'"):
        evaluate([y], {x: a})
    with pytest.raises(InputError, match="'x'"):
        evaluate([y], {}, {n: 3})
    with pytest.raises(ShapeError, match=r"\[4, 2\]"):
        evaluate([y], {x: a}, {n: 4})


@pytest.mark.parametrize("op", ["sum", "max", "min", "prod"])
def test_chunks_agree_with_the_whole(monkeypatch, op):
    monkeypatch.setattr(evaluator, "_CHUNK", 16)
    x = te.placeholder((5, 3, 4), name="x")
    k = te.reduce_axis(4, "k")
    y = te.compute((5, 3), lambda i, j: getattr(te, op)(x[i, j, k], k))
    z = te.compute((3, 5), lambda i, j: y[j, i] + x[j, i, 0])
    a = floats(5, 3, 4)
    want = getattr(np, op)(a, axis=2)
    got = evaluate([y, z], {x: a})
    np.testing.assert_allclose(got[0], want, rtol=1e-5)
    np.testing.assert_allclose(got[1], (want + a[:, :, 0]).T, rtol=1e-5)


def test_integer_division_truncates_and_logical_reductions():
    x = te.placeholder((6,), "int32")
    q = te.compute((6,), lambda i: binary("truncdiv", x[i], 2))
    k = te.reduce_axis(6)
    odd = te.compute((), lambda: te.any(x[k] > 2, k))
    masks = te.compute((), lambda: te.all(x[k], k))
    a = np.array([-3, -2, -1, 1, 2, 3], np.int32)
    got = evaluate([q, odd, masks], {x: a})
    assert got[0].tolist() == [-1, -1, 0, 0, 1, 1]
    assert bool(got[1]) and got[2] == np.bitwise_and.reduce(a)


def test_feeding_an_intermediate_tensor():
    x = te.placeholder((2,))
    y = te.compute((2,), lambda i: x[i] + 1.0)
    z = te.compute((2,), lambda i: y[i] * 2.0)
    np.testing.assert_array_equal(evaluate([z], {y: np.ones(2), x: np.ones(2)})[0], [2, 2])
