"""Contractions as products of matrices on a GPU: what they compute, proven and executed by the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from polycomp import te
from polycomp.decisions import Decisions
from polycomp.expr import Var, cast, select
from polycomp.loops import LoopKind, lower_kernel
from polycomp.loops.interpreter import interpret
from polycomp.poly.legality import verify_kernel
from polycomp.poly.tree import Loop, walk
from polycomp.schedules.library.analysis import computed
from polycomp.schedules.library.choose import build_schedule
from polycomp.schedules.library.gpu.contraction import TENSOR_TILES, TILES, on_tensor_cores, schedule_product
from polycomp.schedules.library.gpu.products import as_products, vector_width, with_inlined
from polycomp.schedules.schedule import Schedule
from polycomp.target import cuda_target
from polycomp.te import Tensor
from polycomp.te.evaluate import evaluate

Case = tuple[list[Tensor], Tensor]


def product(rows: int, depth: int, columns: int, turned: bool = False) -> Case:
    x = te.placeholder((rows, depth), "float32", "x")
    w = te.placeholder((columns, depth) if turned else (depth, columns), "float32", "w")
    k = te.reduce_axis(depth, "k")
    y = te.compute((rows, columns), lambda i, j: te.sum(x[i, k] * (w[j, k] if turned else w[k, j]), axis=k), "y")
    return [x, w], y


def convolution(stride: int = 1, batch: int = 1) -> Case:
    size, channels, outputs = 11, 5, 9
    image = te.placeholder((batch, channels, size, size), "float32", "image")
    weights, bias = (
        te.placeholder((outputs, channels, 3, 3), "float32", "weights"),
        te.placeholder((outputs,), name="b"),
    )
    padded = te.compute(
        (batch, channels, size + 2, size + 2),
        lambda n, c, y, x: select(
            (y >= 1) & (y < size + 1) & (x >= 1) & (x < size + 1), image[n, c, y - 1, x - 1], 0.0
        ),
        "padded",
    )
    c, kh, kw = te.reduce_axis(channels, "c"), te.reduce_axis(3, "kh"), te.reduce_axis(3, "kw")
    out = (size - 1) // stride + 1
    sums = te.compute(
        (batch, outputs, out, out),
        lambda n, o, y, x: te.sum(
            padded[n, c, y * stride + kh, x * stride + kw] * weights[o, c, kh, kw], axis=(c, kh, kw)
        ),
        "sums",
    )
    relu = te.compute(sums.shape, lambda n, o, y, x: te_max(sums[n, o, y, x] + bias[o]), "relu")
    return [image, weights, bias], relu


def te_max(e: object) -> object:
    from polycomp.expr import maximum

    return maximum(e, 0.0)  # type: ignore[arg-type]


def scores(heads: int = 3, rows: int = 18, depth: int = 12) -> Case:
    q, k = (te.placeholder((rows, heads, depth), "float32", n) for n in "qk")
    d = te.reduce_axis(depth, "d")
    s = te.compute((heads, rows, rows), lambda h, i, j: te.sum(q[i, h, d] * k[j, h, d], axis=d), "s")
    return [q, k], s


def bytes_product(rows: int, depth: int, columns: int, kinds: tuple[str, str] = ("uint8", "int8")) -> Case:
    x, w = te.placeholder((rows, depth), kinds[0], "x"), te.placeholder((depth, columns), kinds[1], "w")
    k = te.reduce_axis(depth, "k")
    y = te.compute((rows, columns), lambda i, j: te.sum(cast("int32", x[i, k]) * cast("int32", w[k, j]), axis=k), "y")
    return [x, w], y


def open_batch() -> Case:
    n = te.size("n")
    x, w = te.placeholder((n, 6, 16), "float32", "x"), te.placeholder((16, 20), "float32", "w")
    k = te.reduce_axis(16, "k")
    return [x, w], te.compute((n, 6, 20), lambda b, i, j: te.sum(x[b, i, k] * w[k, j], axis=k), "y")


CASES: Mapping[str, Callable[[], Case]] = {
    "even": lambda: product(32, 16, 64),
    "odd": lambda: product(33, 21, 35),
    "turned": lambda: product(40, 24, 36, turned=True),
    "narrow": lambda: product(5, 9, 7),
    "convolution": convolution,
    "strided": lambda: convolution(2),
    "batch": lambda: convolution(1, 2),
    "scores": scores,
    "open": open_batch,
    "bytes": lambda: bytes_product(20, 64, 32),
    "odd bytes": lambda: bytes_product(33, 21, 35, ("int8", "int8")),
}


def scheduled(case: Case, decisions: Decisions = Decisions()) -> Schedule:  # noqa: B008
    inputs, output = case
    (made,), products = as_products([output])
    schedule = Schedule(made, inputs, {Var("n"): (0, None)}, "kernel", check=False, decisions=decisions)
    assert len(products) == 1
    schedule_product(schedule, computed([made]), products[0], cuda_target())
    return schedule


def random_array(rng: np.random.Generator, shape: list[int], tensor: Tensor) -> np.ndarray:
    if tensor.dtype.is_float:
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(-100 if tensor.dtype.value == "int8" else 0, 100, shape).astype(tensor.dtype.numpy)


@pytest.mark.parametrize("name", CASES)
def test_a_product_is_proven_and_right(name: str) -> None:
    inputs, output = CASES[name]()
    schedule = scheduled((inputs, output))
    assert verify_kernel(schedule.kernel).legal
    sizes = {Var("n"): 3} if name == "open" else {}
    rng = np.random.default_rng(0)
    shapes = [[sizes[d] if isinstance(d, Var) else d for d in t.shape] for t in inputs]
    arrays = [random_array(rng, s, t) for s, t in zip(shapes, inputs, strict=True)]
    (expected,) = evaluate([output], dict(zip(inputs, arrays, strict=True)), sizes)
    (found,) = interpret(lower_kernel(schedule.kernel), arrays, {v.name: n for v, n in sizes.items()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile_is_legal_and_has_a_known_number_of_threads(tile: object) -> None:
    schedule = scheduled(product(200, 24, 136), Decisions().replace("y.product.tile", str(tile)))
    assert verify_kernel(schedule.kernel).legal
    nests: dict[int, int] = {}
    for node, path in walk(schedule.kernel.tree):
        if isinstance(node, Loop) and node.kind is LoopKind.THREAD:
            outer = next(n for n in (*path, node) if isinstance(n, Loop) and n.kind is LoopKind.THREAD)
            nests[id(outer)] = nests.get(id(outer), 1) * int(node.extent)  # type: ignore[arg-type]
    assert set(nests.values()) == {tile.threads}  # type: ignore[attr-defined]
    assert tile.threads % 32 == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("tile", TENSOR_TILES, ids=str)
def test_bytes_are_multiplied_on_tensor_cores(tile: object) -> None:
    schedule = scheduled(bytes_product(200, 128, 144), Decisions().replace("y.product.tile", str(tile)))
    assert verify_kernel(schedule.kernel).legal
    tensors = [n.extent for n, _ in walk(schedule.kernel.tree) if isinstance(n, Loop) and n.kind is LoopKind.TENSOR]
    assert tensors.count(32) == 1


def test_bytes_that_were_converted_before_are_no_operands_of_tensor_cores() -> None:
    """An int8 of the bits of a uint8 is another number than what the instruction would read."""
    x, w = te.placeholder((40, 64), "uint8", "x"), te.placeholder((64, 40), "int8", "w")
    k = te.reduce_axis(64, "k")
    y = te.compute(
        (40, 40), lambda i, j: te.sum(cast("int32", cast("int8", x[i, k])) * cast("int32", w[k, j]), axis=k), "y"
    )
    _, (made,) = as_products([y])
    assert not on_tensor_cores(made, cuda_target())
    assert on_tensor_cores(as_products([bytes_product(40, 64, 40)[1]])[1][0], cuda_target())


def test_vectors_of_what_is_made_where_it_is_copied() -> None:
    """Zeros beyond the end of rows stand in no memory: what threads load at once is told by the rows themselves."""
    x, w = te.placeholder((40, 100), "float32", "x"), te.placeholder((112, 40), "float32", "w")
    padded = te.compute((40, 112), lambda i, k: select(k < 100, x[i, k], 0.0), "padded")
    k = te.reduce_axis(112, "k")
    y = te.compute((40, 40), lambda i, j: te.sum(padded[i, k] * w[k, j], axis=k), "y")
    _, (made,) = as_products([y])
    assert (vector_width(made.left, 8), vector_width(with_inlined(made.left, [padded]), 8)) == (8, 4)


def test_threads_load_vectors_where_rows_begin_at_one() -> None:
    widths = {}
    for name in ("even", "odd", "turned", "convolution"):
        _, (made,) = as_products([CASES[name]()[1]])
        widths[name] = (vector_width(made.left, 4), vector_width(made.right, 4))
    assert widths == {"even": (4, 4), "odd": (1, 1), "turned": (4, 4), "convolution": (1, 1)}


@pytest.mark.parametrize("case", [lambda: product(12, 520, 20), lambda: product(7, 261, 9, turned=True)])
def test_a_long_sum_of_few_results_is_made_in_parts(case: Callable[[], Case]) -> None:
    inputs, output = case()
    shape = output.shape
    shifted = te.compute(shape, lambda i, j: output[i, j] + 1.0, "shifted")
    schedule = build_schedule("kernel", inputs, [shifted], {}, cuda_target())
    assert verify_kernel(schedule.kernel).legal
    blocks = [n for n, _ in walk(schedule.kernel.tree) if isinstance(n, Loop) and n.kind is LoopKind.BLOCK]
    assert {2, 4} & {n.extent for n in blocks}
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal([int(d) for d in t.shape]).astype(np.float32) for t in inputs]  # type: ignore[arg-type]
    (expected,) = evaluate([shifted], dict(zip(inputs, arrays, strict=True)))
    (found,) = interpret(lower_kernel(schedule.kernel), arrays, {})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_what_is_too_small_for_tiles_stays_as_it_is() -> None:
    _, output = product(2, 50, 60)
    (same,), products = as_products([output])
    assert same is output and products == ()
