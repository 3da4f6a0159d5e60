"""Within a kernel of mixed precision nothing is rounded to 16 bits but what a product reads."""

from __future__ import annotations

import numpy as np
import pytest

from polycomp import te
from polycomp.driver.rounding import round_at_borders
from polycomp.dtypes import DType
from polycomp.expr import cast, select
from polycomp.te import Tensor, compute, placeholder, reduce_axis, topological_order
from polycomp.te.evaluate import evaluate

N = 64


def narrowed(x: Tensor, name: str, factor: float) -> Tensor:
    """``x`` times a number, rounded, as an operator's definition has it."""
    return compute(x.shape, lambda *i: cast(x.dtype, cast(DType.FLOAT32, x[i]) * factor), name)


def dtypes(*outputs: Tensor) -> dict[str, str]:
    return {t.name: t.dtype.value for t in topological_order(outputs) if t.body is not None}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_lies_between_keeps_its_digits(dtype: str) -> None:
    x = placeholder((N,), dtype, "x")
    first = narrowed(x, "first", 1 / 49)
    last = narrowed(narrowed(first, "second", 49.0), "last", 1.0)
    (made,) = round_at_borders([last])
    assert dtypes(made) == {"first": "float32", "second": "float32", "last": dtype}
    values = np.linspace(1, 2, N).astype(DType(dtype).numpy)
    np.testing.assert_array_equal(evaluate([made], {x: values})[0], values)
    assert (evaluate([last], {x: values})[0] != values).any()


def test_outputs_are_read_as_they_are_stored() -> None:
    first = narrowed(placeholder((N,), "float16", "x"), "first", 1 / 3)
    made = round_at_borders([first, narrowed(first, "second", 3.0)])
    assert dtypes(*made) == {"first": "float16", "second": "float16"}


def test_products_read_16_bits() -> None:
    x, w, k = placeholder((N, N), "float16", "x"), placeholder((N, N), "float16", "w"), reduce_axis(N, "k")
    left = narrowed(x, "left", 1 / 3)
    wide = lambda e: cast(DType.FLOAT32, e)  # noqa: E731
    total = compute((N, N), lambda i, j: te.sum(wide(left[i, k]) * wide(w[k, j]), k), "total")
    result = compute((N, N), lambda i, j: cast(DType.FLOAT16, total[i, j]), "result")
    (made,) = round_at_borders([narrowed(result, "last", 2.0)])
    assert dtypes(made) == {"left": "float16", "total": "float32", "result": "float32", "last": "float16"}


def test_what_is_only_moved_is_left_alone() -> None:
    first = narrowed(placeholder((N,), "float16", "x"), "first", 1 / 3)
    moved = compute((N,), lambda i: first[N - 1 - i], "moved")
    (made,) = round_at_borders([narrowed(moved, "last", 3.0)])
    assert dtypes(made) == {"first": "float16", "moved": "float16", "last": "float16"}


def test_float32_is_left_alone() -> None:
    last = narrowed(narrowed(placeholder((N,), "float32", "x"), "first", 1 / 3), "last", 3.0)
    assert round_at_borders([last]) == (last,)


def test_recurrences_are_left_alone() -> None:
    x = placeholder((N,), "float16", "x")
    running = te.recurrence((N,), lambda y, i: select(i < 1, x[i], x[i] + y[i - 1]), name="running", dtype="float16")
    assert round_at_borders([running]) == (running,)
