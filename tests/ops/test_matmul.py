"""MatMul and Gemm against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_oracle import array_call, assert_close, make_call, ours, random

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Var
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate

EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)
size = st.sampled_from([1, 2, 3, 5, 7])


@st.composite
def matmul_shapes(draw):
    m, k, n = draw(size), draw(size), draw(size)
    batch = [draw(size) for _ in range(draw(st.integers(0, 3)))]
    shrink = lambda dims: [draw(st.sampled_from([1, d])) for d in dims]  # noqa: E731
    left, right = shrink(batch), shrink(batch)
    left = left[draw(st.integers(0, len(left))) :] if left else left
    a = [*left, m, k] if draw(st.integers(0, 3)) else [k]
    b = [*right, k, n] if draw(st.integers(0, 3)) else [k]
    return a, b


@EXAMPLES
@given(matmul_shapes())
def test_matmul(shapes):
    a, b = random(*shapes[0]), random(*shapes[1], seed=1)
    assert_close(ours("MatMul", a, b), np.asarray(np.matmul(a, b)))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float64", "float16"])
def test_matmul_types(dtype):
    a, b = random(3, 5, dtype=dtype), random(5, 4, dtype=dtype)
    got = ours("MatMul", a, b)
    assert_close(got.astype(np.float64), np.matmul(a, b).astype(np.float64), 2e-3 if dtype == "float16" else 1e-12)


@EXAMPLES
@given(size, size, size, st.booleans(), st.booleans(), st.sampled_from([0.5, 1.0]), st.sampled_from([0.0, 1.0, 2.0]),
       st.sampled_from([None, (), (1,), ("n",), ("m", 1), (1, "n"), ("m", "n")]))  # fmt: skip
def test_gemm(m, k, n, trans_a, trans_b, alpha, beta, addend):
    a, b = random(m, k), random(k, n, seed=1)
    c = None if addend is None else random(*({"m": m, "n": n}.get(d, 1) for d in addend), seed=2)
    expected = alpha * (a @ b) + (0 if c is None else beta * c)
    got = ours("Gemm", a.T.copy() if trans_a else a, b.T.copy() if trans_b else b, c,
               alpha=alpha, beta=beta, transA=int(trans_a), transB=int(trans_b))  # fmt: skip
    assert_close(got, expected.astype(np.float32))


def test_symbolic_batched_matmul():
    batch, length = Var("batch"), Var("length")
    a = placeholder((batch, 4, length, 8), "float32", "a")
    b = placeholder((batch, 1, 8, length), "float32", "b")
    call = make_call("MatMul", [TensorType(t.dtype, t.shape) for t in (a, b)])
    outputs = operators()["MatMul"].lower(call, [a, b])
    assert outputs[0].shape == (batch, 4, length, length)
    feeds = {a: random(2, 4, 3, 8), b: random(2, 1, 8, 3)}
    (got,) = evaluate(outputs, feeds, {batch: 2, length: 3})
    assert_close(got, feeds[a] @ feeds[b])


def test_contraction_form():
    call, tensors = array_call("MatMul", [random(2, 3, 4), random(4, 5)])
    (out,) = operators()["MatMul"].lower(call, tensors)
    assert [a.name for a in out.axes] == ["b0", "m", "n"]
    assert [a.name for a in out.reduce_axes] == ["k"]
    assert str(out.body) == "sum[k<4]((x0[b0, m, k] * x1[k, n]))"


@pytest.mark.parametrize(("a", "b"), [((2, 3), (4, 5)), ((2, 3, 4), (3, 4, 5)), ((3,), (2,))])
def test_mismatch_is_named(a, b):
    call = make_call("MatMul", [TensorType(DType.FLOAT32, s) for s in (a, b)])
    with pytest.raises(ShapeError, match=r"MatMul 'node': shapes .* cannot be multiplied"):
        operators()["MatMul"].infer(call)


def test_mixed_types_are_named():
    types = [TensorType(DType.FLOAT32, (2, 2)), TensorType(DType.FLOAT64, (2, 2))]
    with pytest.raises(DTypeError, match=r"not float32\[2, 2\], float64\[2, 2\]"):
        operators()["MatMul"].infer(make_call("MatMul", types))
