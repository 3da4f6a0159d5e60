"""Runs one operator of the library through its shape rule, its lowering and the numpy evaluator."""

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.graph import Call, TensorType
from polycomp.ops import operators
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate, evaluate_dim

SIZES = [0, 1, 2, 3, 5, 7, 8, 13]


def make_call(op, types, attributes, n_outputs=1):
    return Call("node", op, tuple(types), attributes, n_outputs)


def type_of(array):
    return None if array is None else TensorType(as_dtype(array.dtype), array.shape)


def run_all(op, arrays, n_outputs=1, types=None, bound=None, **attributes):
    """All outputs; checks that the shape rule foretold their shapes and element types."""
    arrays = [None if a is None else np.asarray(a) for a in arrays]
    types = types or [type_of(a) for a in arrays]
    call = make_call(op, types, attributes, n_outputs)
    inferred = operators()[op].infer(call)
    tensors = [None if t is None else placeholder(t.shape, t.dtype, f"in{p}") for p, t in enumerate(types)]
    outputs = operators()[op].lower(call, tensors)
    feeds = {t: a for t, a in zip(tensors, arrays, strict=True) if t is not None}
    results = evaluate(outputs, feeds, bound or {})
    for result, kind in zip(results, inferred, strict=True):
        assert as_dtype(result.dtype) is kind.dtype
        assert result.shape == tuple(evaluate_dim(d, bound or {}) for d in kind.shape)
    return results


def run(op, *arrays, **attributes):
    """The only output."""
    return run_all(op, arrays, **attributes)[0]


def data(shape, dtype="float32", seed=0, low=-3.0, high=3.0):
    """Reproducible values; integers from -9 to 9 (unsigned from 0)."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        return rng.integers(-9 if kind.kind == "i" else 0, 10, shape).astype(kind)
    return rng.uniform(low, high, shape).astype(kind)


def tolerance(dtype):
    return {"float16": 2e-3, "float32": 3e-6, "float64": 1e-12}.get(np.dtype(dtype).name, 0)


def assert_close(got, want, scale=1.0):
    rtol = tolerance(want.dtype) * scale
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)
