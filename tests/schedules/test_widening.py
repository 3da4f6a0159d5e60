"""Operands narrower than the arithmetic are converted once, not for every vector of results."""

from __future__ import annotations

import numpy as np
import pytest

import polycomp as pc
from polycomp.expr import Load, loads
from polycomp.schedules.library.analysis import as_contraction
from polycomp.schedules.library.choose import build_schedule
from polycomp.schedules.library.widening import widen_operands
from polycomp.target import host_target
from polycomp.te import Tensor
from polycomp.te.evaluate import evaluate


def product(kind: str, wide: str, rows: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    a, b = pc.placeholder((rows, 7), kind, "a"), pc.placeholder((7, 40), kind, "b")
    k = pc.reduce_axis(7, "k")
    return a, b, pc.compute((rows, 40), lambda i, j: pc.sum(pc.cast(wide, a[i, k]) * pc.cast(wide, b[k, j]), k), "c")


@pytest.mark.parametrize(("kind", "wide"), [("float16", "float32"), ("int8", "int32"), ("float32", "float64")])
def test_the_repeated_operand_is_converted_first(kind: str, wide: str) -> None:
    a, b, c = product(kind, wide)
    (changed,) = widen_operands([c])
    assert changed.body is not None
    assert [(x.source.name, x.dtype.value) for x in loads(changed.body)] == [("a.wide", wide), ("b", kind)]
    feeds = {t: np.arange(t.shape[0] * t.shape[1]).reshape(t.shape).astype(kind) for t in (a, b)}
    for one, other in zip(evaluate([c], feeds), evaluate([changed], feeds), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_computed_is_computed_in_the_wider_type() -> None:
    x = pc.placeholder((5, 7), "float16", "x")
    padded = pc.compute((5, 9), lambda i, j: pc.select(j < 7, x[i, j], 0.0), "padded")
    b, k = pc.placeholder((9, 40), "float16", "b"), pc.reduce_axis(9, "k")
    wide = "float32"
    c = pc.compute((5, 40), lambda i, j: pc.sum(pc.cast(wide, padded[i, k]) * pc.cast(wide, b[k, j]), k), "c")
    (changed,) = widen_operands([c])
    contraction = as_contraction(changed)
    assert contraction is not None and isinstance(contraction.other, Load)
    assert contraction.other.source.name == "padded.wide" and contraction.other.source.inputs() == (x,)


def test_what_needs_no_conversion_stays() -> None:
    *_, c = product("float32", "float32")
    assert widen_operands([c]) == (c,)
    y = pc.compute((5, 40), lambda i, j: c[i, j] + 1.0, "y")
    assert widen_operands([y]) == (y,)


def test_products_of_halves() -> None:
    a, b, c = product("float16", "float32", rows=64)
    built = pc.build(build_schedule("k", [a, b], [c], {}, host_target()), target="cpu")
    x, y = (np.random.default_rng(i).standard_normal(t.shape).astype(np.float16) for i, t in enumerate((a, b)))
    wanted = x.astype(np.float32) @ y.astype(np.float32)
    np.testing.assert_allclose(built(x, y), wanted, rtol=1e-4, atol=1e-4)
