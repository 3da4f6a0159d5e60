"""numpy's functions, einsum, indexing and the layers, each against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jit_oracle import check, compare, numbers

import polycomp as pc

N = pc.size("n")
X, Y = numbers(4, 6), numbers(6, 3, seed=1)
I = numbers(4, 6, dtype="int32")  # noqa: E741
IMAGE = numbers(2, 4, 9, 8)

EINSUMS = [
    ("ij,jk->ik", (4, 6), (6, 3)),
    ("ij,jk->ki", (4, 6), (6, 3)),
    ("ij,jk", (4, 6), (6, 3)),
    ("ij->ji", (4, 6)),
    ("ij->", (4, 6)),
    ("ii->i", (5, 5)),
    ("ii", (5, 5)),
    ("iij->ij", (3, 3, 2)),
    ("i,j->ij", (4,), (3,)),
    ("i,i->", (4,), (4,)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    ("ijk,kj->i", (2, 3, 4), (4, 3)),
    ("ab,cd->dacb", (2, 3), (4, 2)),
    ("ij,ij->ij", (4, 6), (4, 6)),
    ("ij,ij->j", (4, 6), (4, 6)),
    ("...i->...", (2, 3, 4)),
    ("ij,jk->ik", (4, 1), (6, 3)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=lambda c: f"{c[0]}-{len(c)}")
def test_einsum(case: tuple[Any, ...]) -> None:
    subscripts, *shapes = case
    check(lambda *a: np.einsum(subscripts, *a), *(numbers(*s, dtype="float64", seed=i) for i, s in enumerate(shapes)))


def several(x: Any, y: Any, i: Any) -> Any:
    """Many functions in one compilation."""
    return (
        np.dot(x, y), np.inner(x, x), np.outer(x[0], y[0]), np.vdot(x, x), np.tensordot(x, y, 1),
        np.tensordot(x, x, ([0], [0])), np.linalg.norm(x, axis=1), np.linalg.norm(x), np.trace(x), np.diagonal(x, 0),
        np.split(x, [1, 3]), np.array_split(x, 3), np.hstack([x, x]), np.vstack([x, i]), np.column_stack([x[0], x[1]]),
        np.atleast_2d(x[0]), np.ravel(x), np.swapaxes(x, 0, 1), np.expand_dims(x, (0, 2)),
    )  # fmt: skip


def more(x: Any, y: Any, i: Any) -> Any:
    return (
        np.var(x, axis=0, ddof=1), np.average(x, axis=0), np.average(x, weights=np.abs(x)), np.ptp(x, axis=1),
        np.count_nonzero(i > 0, axis=0), np.full_like(x, 3), np.ones_like(i), np.nan_to_num(np.log(x)),
        np.take_along_axis(x, np.argsort(X, axis=1), axis=1), np.triu(x, -1), np.flipud(x), np.roll(x, 5),
        np.round(x, 1), np.clip(i, 0, 500), np.pad(x, ((1, 0), (2, 1)), mode="edge"), np.pad(x, 2, mode="reflect"),
        np.pad(x, 1, mode="wrap"), np.pad(i, 1, constant_values=7),
    )  # fmt: skip


def scalars(x: Any, y: Any, i: Any) -> Any:
    return (
        divmod(i, 5), divmod(x, 0.7), i / i, i // (i * 0), i % 0, x // 0.3, 2**i.astype(float), i**0, i**1, i**5,
        np.hypot(x, x + 1), np.arctan2(x, x[::-1]), np.logaddexp(x, 0), np.cbrt(x), np.copysign(x, -1.0),
        np.log10(i**2),
        np.fmod(i, 7), np.heaviside(x, 0.5), np.reciprocal(x), np.deg2rad(x), i.astype(np.uint64) > i, x > -math.inf,
        np.isinf(x / 0), i == 300, i.astype(np.int8) < 1000, np.power(i, 3), np.left_shift(i, 2), np.float_power(i, 2),
    )  # fmt: skip


def indexing(x: Any, y: Any, i: Any) -> Any:
    return (
        x[1], x[-1, 2], x[..., 1], x[1:3, ::2], x[::-1, ::-2], x[None, :, None], x[5:], x[-2:], x[[0, -1]],
        x[[0, 1], [2, -3]], x[:, [0, 2]], x[np.array([[0, 1], [2, 3]])], x[1:, [0, 2]], x[x[:, 0].argmax()],
        x[np.array([True, False, True, False])], x[None, [0, 1], :, None], x[i[:, 0] % 4, i[:, 1] % 6], x[1, i[0] % 6],
        x[()], y[..., -1:], x[i[:2, :2] % 4, 1],
    )  # fmt: skip


def statistics(x: Any, y: Any, i: Any) -> Any:
    holes = np.where(x > -1, x, np.nan)
    return (
        np.average(x, axis=0, weights=np.arange(4.0)), np.average(i, axis=1, weights=np.arange(1, 7)), np.cov(x),
        np.cov(i, rowvar=False), np.cov(x[0]), np.corrcoef(x), np.nansum(holes, axis=1), np.nanmean(holes, axis=0),
        np.nanmax(np.abs(holes), axis=1), np.nanmin(holes, keepdims=True), np.nanmean(i),
        np.trapezoid(x, axis=0), np.trapezoid(x, np.arange(6.0) ** 2), np.trapezoid(x, i, axis=1),
        np.sinc(x * 0.0 + i),
        np.histogram(x, 5, (-1, 1)), np.histogram(i, np.array([-20, 0, 3, 20])),
        np.histogram(x, 4, (0, 1), density=True),
        np.digitize(x, np.array([-1.0, 0.0, 1.0])), np.digitize(i, [20, 10, 0]),
        np.digitize(i, [0, 10, 20], right=True),
        np.searchsorted(np.array([-1.0, 0.0, 1.0]), x, side="right"), np.interp(x, [-1.0, 0.0, 2.0], [1.0, 0.0, 5.0]),
        np.interp(i, [-3.0, 8.0], [1.0, 0.0], left=-7.0), np.unravel_index(np.argmax(x), (4, 6)),
    )  # fmt: skip


def products(x: Any, y: Any, i: Any) -> Any:
    return (
        np.cross(x[:, :3], x[:, 3:]), np.kron(x, y), np.kron(x[0], y), np.linalg.matrix_power(x[:, :4], 5),
        np.linalg.matrix_power(i[:, :4], 0), np.polyval([1.0, 2.0, 3.0], x), np.polyval(x[0], i),
        [np.convolve(x[0], y[:4, 0], m) for m in ("full", "same", "valid")], np.convolve(y[:2, 0], x[0], "same"),
        [np.correlate(i[0], i[1, :3], m) for m in ("full", "same", "valid")], np.multiply.outer(x, y[0]),
        np.logaddexp.reduce(x, axis=1), x.trace(), np.trace(x, 2), np.diagonal(x, -1), np.diagonal(x, 1, 1, 0),
    )  # fmt: skip


def arrangements(x: Any, y: Any, i: Any) -> Any:
    return (
        np.meshgrid(x[0], y[:, 0]), np.meshgrid(x[0], y[:, 0], i[0], indexing="ij"), np.meshgrid(x[0], sparse=True),
        np.rot90(x), np.rot90(x, -1), np.rot90(x, 2), np.rollaxis(np.stack([x, x]), 2), np.rollaxis(x, 0, 2),
        np.append(x, i), np.append(x, x, axis=1), np.dstack([x, i]), np.block([[x, i], [i, x]]), np.block([x[0], 1.0]),
        np.lib.stride_tricks.sliding_window_view(x, (2, 3)), np.lib.stride_tricks.sliding_window_view(x, 4, axis=0),
        np.select([x > 1, x > 0], [x, i], -1.0), np.isclose(x, x + 1e-9), np.isclose(i, i * 1.0), np.allclose(x, x),
        np.isclose(np.log(x), np.log(x), equal_nan=True), np.array_equal(x, x + 1), np.array_equal(x, x[0]),
        np.roll(x, (1, -2), (0, 1)), np.roll(x, 3, (0, 1)),
    )  # fmt: skip


@pytest.mark.parametrize("function", [several, more, scalars, indexing, statistics, products, arrangements])
def test_numpy_functions(function: Callable[..., Any]) -> None:
    check(function, X, Y, I)


@pytest.mark.parametrize("n", [1, 16, 37, 300])
def test_cumulative_sums(n: int) -> None:
    x = numbers(3, n)
    np.testing.assert_allclose(pc.jit(lambda x: np.cumsum(x, axis=1))(x), np.cumsum(x, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        pc.jit(lambda x: np.cumsum(x.T, axis=0))(x), np.cumsum(x.T, axis=0), rtol=1e-4, atol=1e-5
    )


def test_three_dimensional_indexing() -> None:
    x = numbers(3, 4, 5)
    check(lambda a: (a[0, :, [1, 2]], a[:, [0, 1], [2, 3]], a[[0, 1], :, [2, 3]], a[..., [0, 1]]), x)


def softmax(x: Any) -> Any:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def moments(x: Any, axes: Any) -> Any:
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)


def test_activations_and_normalisations() -> None:
    c, d = numbers(6, seed=3), numbers(6, seed=4)
    got = pc.jit(
        lambda x: (
            pc.relu(x), pc.sigmoid(x), pc.softmax(x), pc.softmax(x, axis=0), pc.log_softmax(x), pc.layer_norm(x, c, d),
            pc.layer_norm(x), pc.rms_norm(x, c), pc.leaky_relu(x, 0.2), pc.silu(x), pc.softplus(x), pc.elu(x),
            pc.gelu(x, approximate="tanh"), pc.logsumexp(x, axis=1), pc.erf(x), pc.one_hot(x.argmax(axis=1), 6),
        )
    )(X)  # fmt: skip
    tanh = np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))
    want = (
        np.maximum(X, 0), 1 / (1 + np.exp(-X)), softmax(X), softmax(X.T).T, np.log(softmax(X)), moments(X, -1) * c + d,
        moments(X, -1), X / np.sqrt((X * X).mean(axis=-1, keepdims=True) + 1e-5) * c, np.where(X > 0, X, X * 0.2),
        X / (1 + np.exp(-X)), np.log1p(np.exp(X)), np.where(X > 0, X, np.expm1(X)), 0.5 * X * (1 + tanh),
        np.log(np.exp(X).sum(axis=1)), np.vectorize(math.erf)(X), np.eye(6)[X.argmax(axis=1)],
    )  # fmt: skip
    for g, w in zip(got, want, strict=True):
        compare(g, w.astype(np.float32))


def test_channel_normalisations() -> None:
    scale, bias, mean, var = (numbers(4, seed=s) for s in range(4))
    wide = (slice(None), None, None)
    got = pc.jit(
        lambda x: (
            pc.batch_norm(x, mean, var * var, scale, bias), pc.instance_norm(x, scale, bias),
            pc.group_norm(x, 2, scale, bias),
        )
    )(IMAGE)  # fmt: skip
    groups = moments(IMAGE.reshape(2, 2, -1), -1).reshape(IMAGE.shape)
    want = (
        (IMAGE - mean[wide]) / np.sqrt((var * var)[wide] + 1e-5) * scale[wide] + bias[wide],
        moments(IMAGE, (2, 3)) * scale[wide] + bias[wide], groups * scale[wide] + bias[wide],
    )  # fmt: skip
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-3)


def direct_conv(x: Any, w: Any, strides: int, pad: int) -> Any:
    """One product per output position."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))[:, :, ::strides, ::strides]
    return np.einsum("nchwij,kcij->nkhw", windows, w)


def test_convolution_and_pooling() -> None:
    w, b = numbers(5, 4, 3, 3, seed=1), numbers(5, seed=2)
    got = pc.jit(
        lambda x: (
            pc.conv(x, w, b, padding="same"), pc.conv(x, w, strides=2, padding=1), pc.max_pool(x, 2),
            pc.average_pool(x, 3, strides=1, padding=1), pc.global_average_pool(x), pc.conv(x, w, padding="valid"),
            pc.conv_transpose(x, w.transpose(1, 0, 2, 3), strides=2),
        )
    )(IMAGE)  # fmt: skip
    assert got[0].shape == (2, 5, 9, 8) and got[6].shape == (2, 5, 19, 17)
    np.testing.assert_allclose(got[0], direct_conv(IMAGE, w, 1, 1) + b[:, None, None], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got[1], direct_conv(IMAGE, w, 2, 1), rtol=1e-3, atol=1e-4)
    pools = IMAGE[:, :, :8].reshape(2, 4, 4, 2, 4, 2)
    np.testing.assert_array_equal(got[2], pools.max(axis=(3, 5)))
    np.testing.assert_allclose(got[4], IMAGE.mean(axis=(2, 3), keepdims=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[5], direct_conv(IMAGE, w, 1, 0), rtol=1e-3, atol=1e-4)


def reference_attention(q: Any, k: Any, v: Any, visible: Any) -> Any:
    scores = np.where(visible, q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    return softmax(scores) @ v


@pytest.mark.parametrize("dynamic", [{}, {"q": (2, "n", 8), "k": (2, "n", 8), "v": (2, "n", 8)}])
def test_attention(dynamic: Any) -> None:
    q, k, v = (numbers(2, 10, 8, seed=s) for s in range(3))
    mask = numbers(10, 10, dtype="bool", seed=5) | np.eye(10, dtype=bool)
    f = pc.jit(dynamic=dynamic)(lambda q, k, v: (pc.attention(q, k, v), pc.attention(q, k, v, causal=True)))
    plain, causal = f(q, k, v)
    np.testing.assert_allclose(plain, reference_attention(q, k, v, True), rtol=1e-3, atol=1e-4)
    triangle = np.tril(np.ones((10, 10), bool))
    np.testing.assert_allclose(causal, reference_attention(q, k, v, triangle), rtol=1e-3, atol=1e-4)
    masked = pc.jit(pc.attention)(q, k, v, mask)
    np.testing.assert_allclose(masked, reference_attention(q, k, v, mask), rtol=1e-3, atol=1e-4)


def test_new_tensors_of_open_sizes() -> None:
    @pc.jit
    def f(x: pc.Tensor[N]) -> Any:
        n = x.shape[0]
        return pc.arange(n) * 2, pc.zeros((n, 2)), pc.ones(n, np.float32) * x, pc.arange(1, n + 1)

    for n in (3, 5):
        even, zeros, same, counted = f(numbers(n))
        np.testing.assert_array_equal(even, np.arange(n) * 2)
        np.testing.assert_array_equal(zeros, np.zeros((n, 2)))
        np.testing.assert_array_equal(same, numbers(n))
        np.testing.assert_array_equal(counted, np.arange(1, n + 1))
