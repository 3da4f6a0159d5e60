"""The schedule library for GPUs: every kind of kernel is bound, proven, and computes what the numpy evaluator does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from test_library import CASES, SYMBOLIC, Definition, S, layer_norm, matmul, max_pool, softmax, transpose
from test_library import _random as random_values
from test_library import _size as size_of

from polycomp import te
from polycomp.decisions import Decisions
from polycomp.expr import Var, cast, eq, maximum, minimum, select, unary
from polycomp.loops import (
    Alloc,
    Barrier,
    Block,
    Buffer,
    For,
    If,
    Let,
    LoopKind,
    LoopNest,
    Scope,
    Stmt,
    Store,
    lower_kernel,
)
from polycomp.loops.interpreter import interpret
from polycomp.loops.visit import inner, walk
from polycomp.poly.legality import verify_kernel
from polycomp.schedules.library.choose import build_schedule
from polycomp.schedules.schedule import Schedule
from polycomp.target import Target, parse_target
from polycomp.te.evaluate import evaluate

GPU = parse_target("cuda")
SMALL = dataclasses.replace(GPU, cores=1)
"""One multiprocessor, for which small kernels are large."""

_LIBRARY = Decisions()


def scheduled(
    definition: Definition,
    target: Target = GPU,
    sizes: Mapping[Var, int] | None = None,
    decisions: Decisions = _LIBRARY,
) -> Schedule:
    return build_schedule("k", *definition, dict.fromkeys(sizes or {}, (1, 64)), target, decisions)


def lowered(schedule: Schedule) -> LoopNest:
    """The loops of a schedule, which is proven and bound."""
    assert verify_kernel(schedule.kernel).violation is None
    nest = lower_kernel(schedule.kernel)
    for launch in launches(nest.body):
        check_launch(launch)
    return nest


def check(definition: Definition, target: Target = GPU, sizes: Mapping[Var, int] | None = None) -> LoopNest:
    inputs, outputs = definition
    bound = dict(sizes or {})
    nest = lowered(scheduled(definition, target, bound))
    rng = np.random.default_rng(0)
    feeds = [random_values(rng, t, bound) for t in inputs]
    merged = [f.reshape([size_of(d, bound) for d in b.shape]) for f, b in zip(feeds, nest.inputs, strict=True)]
    results = interpret(nest, merged, {v.name: n for v, n in bound.items()})
    expected = evaluate(outputs, dict(zip(inputs, feeds, strict=True)), bound)
    for got, want in zip(results, expected, strict=True):
        rough = 2e-3 if want.dtype == np.float16 else 2e-5
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=rough, atol=rough)
    return nest


# ---------------------------------------------------------------------- what codegen relies on


def launches(stmt: Stmt) -> list[Stmt]:
    match stmt:
        case Block():
            return [launch for child in stmt.stmts for launch in launches(child)]
        case Alloc() if stmt.buffer.scope is Scope.WORKSPACE:
            return launches(stmt.body)
    return [stmt]


def nests(stmt: Stmt) -> Iterator[For]:
    """The outermost loops over threads."""
    if isinstance(stmt, For) and stmt.kind is LoopKind.THREAD:
        yield stmt
        return
    for child in inner(stmt):
        yield from nests(child)


def threads_of(nest: Stmt) -> int:
    """The threads of a nest, whose loops are perfectly nested."""
    count = 1
    while True:
        match nest:
            case For() if nest.kind is LoopKind.THREAD:
                count *= int(nest.stop.value)  # type: ignore[attr-defined]
                nest = nest.body
            case Alloc() | Let() | If(orelse=None):
                nest = nest.body
            case _:
                assert not list(nests(nest))
                return count


def blocks_removed(launch: Stmt) -> Stmt:
    while isinstance(launch, For) and launch.kind is LoopKind.BLOCK:
        launch = launch.body
    return launch


def allocated(stmt: Stmt, scope: Scope) -> list[Buffer]:
    return [s.buffer for s in walk(stmt) if isinstance(s, Alloc) and s.buffer.scope is scope]


def bytes_of(buffer: Buffer) -> int:
    return math.prod(int(n) for n in buffer.shape) * buffer.dtype.bytes  # type: ignore[arg-type]


def check_launch(launch: Stmt) -> None:
    """Blocks around threads, which are whole warps; what a block has to itself fits."""
    body = blocks_removed(launch)
    assert not any(isinstance(s, For) and s.kind is LoopKind.BLOCK for s in walk(body))
    threads = max(map(threads_of, nests(body)))
    assert threads % 32 == 0 and threads <= 1024
    assert not allocated(launch, Scope.WORKSPACE)
    assert sum(map(bytes_of, allocated(launch, Scope.SHARED))) <= 48 << 10


# ---------------------------------------------------------------------- kernels


def total(*shape: te.Dim) -> Definition:
    x = te.placeholder(shape, name="x")
    axes = tuple(te.reduce_axis(n, f"k{d}") for d, n in enumerate(shape))
    return [x], [te.compute((), lambda: te.sum(x[axes], axes), "t")]


def mean_of_rows(rows: te.Dim, n: int) -> Definition:
    x, k = te.placeholder((rows, n), name="x"), te.reduce_axis(n, "k")
    t = te.compute((rows,), lambda i: te.sum(x[i, k], k), "t")
    return [x], [te.compute((rows,), lambda i: t[i] * (1 / max(n, 1)), "m")]


def normalised_line(n: int) -> Definition:
    x, k = te.placeholder((n,), name="x"), te.reduce_axis(n, "k")
    t = te.compute((), lambda: te.sum(x[k], k), "t")
    return [x], [te.compute((n,), lambda i: x[i] - t[()] * 0.5, "y")]


def largest_position(rows: int, n: int) -> Definition:
    x, k, k2 = te.placeholder((rows, n), name="x"), te.reduce_axis(n, "k"), te.reduce_axis(n, "k2")
    best = te.compute((rows,), lambda i: te.max(x[i, k], k), "best")
    return [x], [te.compute((rows,), lambda i: te.min(select(eq(x[i, k2], best[i]), k2, n), k2), "p")]


def half_rows(rows: int, n: int) -> Definition:
    x, k = te.placeholder((rows, n), "float16", "x"), te.reduce_axis(n, "k")
    t = te.compute((rows,), lambda i: te.sum(cast("float32", x[i, k]), k), "t")
    return [x], [te.compute((rows, n), lambda i, j: cast("float16", cast("float32", x[i, j]) / (t[i] + 99.0)), "y")]


def sum_of_rows(rows: te.Dim, n: te.Dim) -> Definition:
    x, k = te.placeholder((rows, n), name="x"), te.reduce_axis(rows, "k")
    return [x], [te.compute((n,), lambda j: te.sum(x[k, j], k), "t")]


def channel_sums(batch: int, channels: int, pixels: int) -> Definition:
    x = te.placeholder((batch, channels, pixels), name="x")
    a, b = te.reduce_axis(batch, "a"), te.reduce_axis(pixels, "b")
    return [x], [te.compute((channels,), lambda c: te.sum(x[a, c, b], (a, b)), "t")]


def sum_and_rest(rows: int, n: int) -> Definition:
    """Two results, one of which is made of the other."""
    x, k = te.placeholder((rows, n), name="x"), te.reduce_axis(n, "k")
    t = te.compute((rows,), lambda i: te.sum(x[i, k], k), "t")
    return [x], [t, te.compute((rows, n), lambda i, j: x[i, j] - t[i], "y")]


def reversed_rows(rows: int, n: int) -> Definition:
    x, k = te.placeholder((rows, n), name="x"), te.reduce_axis(n, "k")
    e = te.compute((rows, n), lambda i, j: unary("exp", x[i, j]), "e")
    s = te.compute((rows,), lambda i: te.sum(e[i, k], k), "s")
    return [x], [te.compute((rows, n), lambda i, j: e[i, n - 1 - j] / s[i], "o")]


def depthwise_image(channels: int, size: int, kernel: int) -> Definition:
    pad = kernel // 2
    x, w = te.placeholder((1, channels, size, size), name="x"), te.placeholder((channels, 1, kernel, kernel), name="w")
    kh, kw = te.reduce_axis(kernel, "kh"), te.reduce_axis(kernel, "kw")
    around = te.compute(
        (1, channels, size + 2 * pad, size + 2 * pad),
        lambda n, c, i, j: select(
            (i >= pad) & (i < size + pad) & (j >= pad) & (j < size + pad), x[n, c, i - pad, j - pad], 0.0
        ),
        "around",
    )
    y = te.compute(x.shape, lambda n, c, i, j: te.sum(around[n, c, i + kh, j + kw] * w[c, 0, kh, kw], (kh, kw)), "y")
    return [x, w], [te.compute(x.shape, lambda n, c, i, j: maximum(y[n, c, i, j], 0.0), "o")]


def patches(channels: int, pixels: int) -> Definition:
    """A transpose behind a row that stands before all others."""
    x, first = te.placeholder((channels, pixels), name="x"), te.placeholder((channels,), name="first")
    return [x, first], [te.compute((pixels + 1, channels), lambda i, j: select(i < 1, first[j], x[j, i - 1]), "o")]


def gathered(rows: te.Dim, width: int) -> Definition:
    numbers, table = te.placeholder((rows,), "int64", "numbers"), te.placeholder((3, width), name="table")
    return [numbers, table], [te.compute((rows, width), lambda i, j: table[numbers[i], j], "rows")]


def steps_of_time(steps: int, n: int, apart: bool) -> Definition:
    x = te.placeholder((steps, n), name="x")

    def step(u: te.Tensor, t: Var, i: Var) -> object:
        return select(t < 1, x[t, i], u[t - 1, i if apart else minimum(i + 1, n - 1)] * 0.5 + x[t, i])

    return [x], [te.recurrence((steps, n), step, name="u")]


PRODUCTS = ("matmul", "packed", "conv", "attention")
KERNELS: dict[str, Callable[[], Definition]] = {
    **{name: case for name, case in CASES.items() if not name.startswith(PRODUCTS)},
    "product-of-one-row": lambda: matmul(1, 70, 130),
    "product-of-one-row-transposed": lambda: matmul(1, 9, 64, transposed=True),
    "rows-of-vectors": lambda: layer_norm(2, 128),
    "rows-without-vectors": lambda: softmax(3, 97),
    "rows-with-a-rest": lambda: softmax(2, 132),
    "no-rows": lambda: softmax(0, 33),
    "empty-rows": lambda: mean_of_rows(3, 0),
    "one-element": lambda: softmax(1, 1),
    "rows-of-halves": lambda: half_rows(2, 256),
    "rows-of-positions": lambda: largest_position(3, 50),
    "rows-in-reverse": lambda: reversed_rows(2, 64),
    "means": lambda: mean_of_rows(3, 64),
    "one-line": lambda: normalised_line(70),
    "one-short-line": lambda: normalised_line(7),
    "total": lambda: total(5, 9),
    "sum-and-rest": lambda: sum_and_rest(3, 40),
    "channel-sums": lambda: channel_sums(3, 4, 50),
    "short-channel-sums": lambda: channel_sums(3, 4, 5),
    "sum-of-rows": lambda: sum_of_rows(100, 9),
    "sum-of-no-rows": lambda: sum_of_rows(0, 9),
    "softmax-over-many-channels": lambda: softmax(2, 50, 9, axis=1),
    "depthwise-image": lambda: depthwise_image(2, 8, 3),
    "transpose-tiles": lambda: transpose(40, 36),
    "transpose-odd-tiles": lambda: transpose(17, 2, 33),
    "patches": lambda: patches(32, 20),
    "gathered": lambda: gathered(5, 12),
    "lanes-of-time": lambda: steps_of_time(5, 9, True),
    "neighbours-in-time": lambda: steps_of_time(5, 9, False),
}


@pytest.mark.parametrize("name", KERNELS)
def test_every_kind_of_kernel(name: str) -> None:
    check(KERNELS[name]())


@pytest.mark.parametrize("name", ["depthwise-image", "max-pool", "rows-of-vectors", "transpose-tiles", "gathered"])
def test_kernels_that_are_large_for_their_gpu(name: str) -> None:
    check(KERNELS[name](), SMALL)


SYMBOLIC_KERNELS: dict[str, Callable[[], Definition]] = {
    **{name: case for name, case in SYMBOLIC.items() if not name.startswith(PRODUCTS)},
    "rows": lambda: layer_norm(S, 64),
    "means": lambda: mean_of_rows(S, 33),
    "sum-of-rows": lambda: sum_of_rows(S, 5),
    "transpose-tiles": lambda: transpose(S, 17),
    "gathered": lambda: gathered(S, 12),
    "total": lambda: total(S, 3),
}


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("name", SYMBOLIC_KERNELS)
def test_symbolic_sizes(name: str, size: int) -> None:
    check(SYMBOLIC_KERNELS[name](), sizes={S: size})


# ---------------------------------------------------------------------- what schedules are like


def decided(schedule: Schedule) -> dict[str, object]:
    return {d.name.rpartition(".")[2]: d.value for d in schedule.decided}


def test_a_row_stays_in_registers() -> None:
    (launch,) = launches(lowered(scheduled(layer_norm(128, 384))).body)
    registers = {b.name: b.shape for b in allocated(launch, Scope.REGISTER)}
    assert registers["added"] == registers["centred"] == (1, 4) and registers["square"] == (1,)
    assert not allocated(launch, Scope.SHARED) and not any(isinstance(s, Barrier) for s in walk(launch))


@pytest.mark.parametrize(
    ("rows", "n", "vector", "threads"),
    [
        (128, 384, 4, 96), (1 << 16, 384, 4, 32), (64, 768, 4, 192), (3136, 96, 1, 32), (1, 1000, 4, 256),
        (2, 4000, 4, 1024), (500, 197, 1, 224),
    ],
)  # fmt: skip
def test_threads_and_vectors_of_rows(rows: int, n: int, vector: int, threads: int) -> None:
    choices = decided(scheduled(softmax(rows, n)))
    assert (choices["vector"], choices["threads"]) == (vector, threads)


def test_rows_that_threads_share_unlike_they_read_them_are_in_shared_memory() -> None:
    (launch,) = launches(lowered(scheduled(reversed_rows(2, 64))).body)
    assert [b.name for b in allocated(launch, Scope.SHARED)] == ["e"]


def test_long_rows_are_summed_in_pieces() -> None:
    schedule = scheduled(mean_of_rows(2, 1 << 18))
    pieces, combined = launches(lowered(schedule).body)
    assert isinstance(pieces, For) and isinstance(pieces.body, For) and isinstance(combined, For)
    assert decided(schedule)["pieces"] == int(pieces.stop.value) == 32  # type: ignore[attr-defined]
    assert len(launches(lowered(scheduled(softmax(1, 1 << 18))).body)) == 6


def test_what_several_launches_read_is_read_by_each() -> None:
    nest = lowered(scheduled(sum_and_rest(3, 40)))
    assert len(launches(nest.body)) == 2 and not allocated(nest.body, Scope.WORKSPACE)


def test_a_window_as_large_as_its_image_is_a_row() -> None:
    x, kh, kw = te.placeholder((600, 7, 7), name="x"), te.reduce_axis(7, "kh"), te.reduce_axis(7, "kw")
    pool = te.compute((600, 1, 1), lambda c, i, j: te.max(x[c, i + kh, j + kw], (kh, kw)), "pool")
    (launch,) = launches(lowered(scheduled(([x], [pool]))).body)
    assert isinstance(launch, For) and int(launch.stop.value) == 600  # type: ignore[attr-defined]


def test_threads_share_in_a_sum_where_there_are_few_results() -> None:
    schedule = scheduled(sum_of_rows(512, 100))
    assert decided(schedule) == {"shares": 32, "columns": 8}
    (launch,) = launches(lowered(schedule).body)
    assert sorted(map(threads_of, nests(launch))) == [8, 256]
    assert decided(scheduled(sum_of_rows(512, 100_000)))["shares"] == 1


def test_windows_that_overlap_are_made_by_one_thread() -> None:
    assert decided(scheduled(depthwise_image(96, 56, 7)))["neighbours"] == 4
    assert decided(scheduled(depthwise_image(8, 7, 3)))["neighbours"] == 1
    assert decided(scheduled(max_pool(64, 112, 2, 2, 0)))["neighbours"] == 1


def test_tiles_of_transposes_have_padded_rows() -> None:
    for extent, row in ((64, 36), (35, 33)):
        (launch,) = launches(lowered(scheduled(transpose(64, extent))).body)
        (tile,) = allocated(launch, Scope.SHARED)
        assert tile.shape[-1] == row
        assert {threads_of(n) for n in nests(launch)} == {256}


@pytest.mark.parametrize(
    ("definition", "vector"),
    [(gathered(64, 12), 4), (gathered(64, 6), 2), (gathered(64, 7), 1), (half_rows(1, 8), None)],
)
def test_vectors_are_one_access(definition: Definition, vector: int | None) -> None:
    assert decided(scheduled(definition)).get("vector") == vector


@pytest.mark.parametrize("name", ["rows-of-vectors", "sum-of-rows", "depthwise-image", "transpose-tiles", "means"])
def test_alternatives_are_legal(name: str) -> None:
    definition = KERNELS[name]()
    choices = scheduled(definition).decided
    assert choices
    for decision in choices:
        for value in decision.alternatives:
            lowered(scheduled(definition, decisions=Decisions().replace(decision.name, value)))


def test_stores_outside_of_loops_over_threads_are_results_of_rows() -> None:
    def outside(stmt: Stmt) -> Iterator[Store]:
        if isinstance(stmt, Store):
            yield stmt
        elif not (isinstance(stmt, For) and stmt.kind is LoopKind.THREAD):
            for child in inner(stmt):
                yield from outside(child)

    nest = lowered(scheduled(mean_of_rows(300, 64)))
    assert [s.buffer.name for s in outside(nest.body) if s.buffer.scope is not Scope.REGISTER] == ["m"]
