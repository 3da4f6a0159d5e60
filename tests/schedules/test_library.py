"""The schedule library against the numpy evaluator: every kind of kernel, sizes that divide nothing evenly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from polycomp import te
from polycomp.expr import Var, maximum, select, unary
from polycomp.loops import lower_kernel
from polycomp.loops.interpreter import interpret
from polycomp.loops.printer import nest_text
from polycomp.poly.legality import verify_kernel
from polycomp.poly.tree import Allocate, LoopKind, walk
from polycomp.schedules.library import schedule_kernel
from polycomp.schedules.library.choose import build_schedule
from polycomp.schedules.library.contraction import Arrival, choose_tile
from polycomp.schedules.library.sharing import longest_share
from polycomp.schedules.schedule import Schedule
from polycomp.target import Target
from polycomp.te import Tensor
from polycomp.te.evaluate import evaluate

# Short vectors and few registers, so that small shapes already have full tiles, partial tiles and several panels.
SMALL = Target("cpu", "x86_64-unknown-linux-gnu", "x86-64", (), vector_bytes=16, vector_registers=8, l2_bytes=2048)

Definition = tuple[Sequence[Tensor], Sequence[Tensor]]


def check(
    definition: Definition, sizes: Mapping[Var, int] | None = None, seed: int = 0, target: Target = SMALL
) -> None:
    inputs, outputs = definition
    bound = dict(sizes or {})
    kernel = schedule_kernel("k", inputs, outputs, dict.fromkeys(bound, (1, 64)), target)
    assert verify_kernel(kernel).violation is None
    nest = lower_kernel(kernel)
    rng = np.random.default_rng(seed)
    feeds = [_random(rng, t, bound) for t in inputs]
    merged = [f.reshape([_size(d, bound) for d in b.shape]) for f, b in zip(feeds, nest.inputs, strict=True)]
    results = interpret(nest, merged, {v.name: n for v, n in bound.items()})
    expected = evaluate(outputs, dict(zip(inputs, feeds, strict=True)), bound)
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=2e-5, atol=2e-5)


def _size(dim: te.Dim, sizes: Mapping[Var, int]) -> int:
    if isinstance(dim, int):
        return dim
    probe = te.compute((), lambda: dim)
    return int(evaluate([probe], {}, sizes)[0])


def _random(rng: np.random.Generator, tensor: Tensor, sizes: Mapping[Var, int]) -> np.ndarray:
    shape = [_size(d, sizes) for d in tensor.shape]
    if tensor.dtype.is_integer:
        return rng.integers(0, 3, shape).astype(tensor.dtype.numpy)
    return rng.standard_normal(shape).astype(tensor.dtype.numpy)


def softmax(*shape: te.Dim, axis: int = -1) -> Definition:
    x = te.placeholder(shape, name="x")
    axis %= len(shape)
    k, k2 = te.reduce_axis(shape[axis], "k"), te.reduce_axis(shape[axis], "k2")
    rest = [d for i, d in enumerate(shape) if i != axis]

    def at(index: tuple[object, ...], along: object) -> tuple[object, ...]:
        return (*index[:axis], along, *index[axis:])

    def without(index: tuple[object, ...]) -> tuple[object, ...]:
        return (*index[:axis], *index[axis + 1 :])

    m = te.compute(rest, lambda *i: te.max(x[at(i, k)], axis=k), "m")
    e = te.compute(shape, lambda *i: unary("exp", x[i] - m[without(i)]), "e")
    s = te.compute(rest, lambda *i: te.sum(e[at(i, k2)], axis=k2), "s")
    return [x], [te.compute(shape, lambda *i: e[i] / s[without(i)], "o")]


def matmul(m: te.Dim, n: te.Dim, k: te.Dim, transposed: bool = False, batch: tuple[int, ...] = ()) -> Definition:
    a = te.placeholder((*batch, m, k), name="a")
    b = te.placeholder((*batch, n, k) if transposed else (*batch, k, n), name="b")
    r = te.reduce_axis(k, "r")

    def body(*i: object) -> object:
        *outer, row, column = i
        right = b[(*outer, column, r)] if transposed else b[(*outer, r, column)]
        return te.sum(a[(*outer, row, r)] * right, axis=r)

    c = te.compute((*batch, m, n), body, "c")
    bias = te.placeholder((n,), name="bias")
    return [a, b, bias], [te.compute((*batch, m, n), lambda *i: maximum(c[i] + bias[i[-1]], 0.0), "o")]


def packed_matmul(m: te.Dim, n: int, k: int, panel: int) -> Definition:
    a = te.placeholder((m, k), name="a")
    b = te.placeholder((-(-n // panel), k, panel), name="b")
    r = te.reduce_axis(k, "r")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[j // panel, r, j % panel], axis=r), "c")
    return [a, b], [c]


def blocked_conv(c: int, k: int, size: int, kernel: int, stride: int, pad: int, block: int = 4) -> Definition:
    x = te.placeholder((1, c // block, size, size, block), name="x")
    w = te.placeholder((k // block, c, kernel, kernel, block), name="w")
    bias = te.placeholder((k // block, block), name="bias")
    padded = size + 2 * pad
    source = x
    if pad:
        source = te.compute(
            (1, c // block, padded, padded, block),
            lambda n, o, h, v, i: select(
                (h >= pad) & (h < size + pad) & (v >= pad) & (v < size + pad), x[n, o, h - pad, v - pad, i], 0.0
            ),
            "y.padded",
        )
    out = (padded - kernel) // stride + 1
    co, ci = te.reduce_axis(c // block, "co"), te.reduce_axis(block, "ci")
    kh, kw = te.reduce_axis(kernel, "kh"), te.reduce_axis(kernel, "kw")
    y = te.compute(
        (1, k // block, out, out, block),
        lambda n, ko, oh, ow, ki: te.sum(
            source[n, co, oh * stride + kh, ow * stride + kw, ci] * w[ko, co * block + ci, kh, kw, ki],
            axis=(co, kh, kw, ci),
        ),
        "y",
    )
    o = te.compute(y.shape, lambda n, ko, oh, ow, ki: maximum(y[n, ko, oh, ow, ki] + bias[ko, ki], 0.0), "o")
    return [x, w, bias], [o]


def depthwise(c: int, size: int, block: int = 4, pad: int = 0, stride: int = 1) -> Definition:
    x = te.placeholder((1, c // block, size, size, block), name="x")
    w = te.placeholder((c // block, 3, 3, block), name="w")
    kh, kw = te.reduce_axis(3, "kh"), te.reduce_axis(3, "kw")
    padded = te.compute(
        (1, c // block, size + 2 * pad, size + 2 * pad, block),
        lambda n, co, h, w, ki: select(
            (h >= pad) & (h < size + pad) & (w >= pad) & (w < size + pad), x[n, co, h - pad, w - pad, ki], 0.0
        ),
        "padded",
    )
    source, out = padded if pad else x, (size + 2 * pad - 3) // stride + 1
    y = te.compute(
        (1, c // block, out, out, block),
        lambda n, co, oh, ow, ki: te.sum(
            source[n, co, oh * stride + kh, ow * stride + kw, ki] * w[co, kh, kw, ki], axis=(kh, kw)
        ),
        "y",
    )
    return [x, w], [y]


def max_pool(c: int, size: int, kernel: int, stride: int, pad: int) -> Definition:
    x = te.placeholder((1, c, size, size), name="x")
    padded = size + 2 * pad
    p = te.compute(
        (1, c, padded, padded),
        lambda n, k, h, w: select(
            (h >= pad) & (h < size + pad) & (w >= pad) & (w < size + pad), x[n, k, h - pad, w - pad], float("-inf")
        ),
        "y.padded",
    )
    out = (padded - kernel) // stride + 1
    kh, kw = te.reduce_axis(kernel, "kh"), te.reduce_axis(kernel, "kw")
    return [x], [
        te.compute(
            (1, c, out, out),
            lambda n, k, oh, ow: te.max(p[n, k, oh * stride + kh, ow * stride + kw], axis=(kh, kw)),
            "y",
        )
    ]


def layer_norm(rows: te.Dim, width: te.Dim) -> Definition:
    x, gain = te.placeholder((rows, width), name="x"), te.placeholder((width,), name="gain")
    other = te.placeholder((rows, width), name="other")
    k, k2 = te.reduce_axis(width, "k"), te.reduce_axis(width, "k2")
    added = te.compute((rows, width), lambda i, j: x[i, j] + other[i, j], "added")
    total = te.compute((rows,), lambda i: te.sum(added[i, k], axis=k), "total")
    mean = te.compute((rows,), lambda i: total[i] * 0.125, "mean")
    centred = te.compute((rows, width), lambda i, j: added[i, j] - mean[i], "centred")
    square = te.compute((rows,), lambda i: te.sum(centred[i, k2] * centred[i, k2], axis=k2), "square")
    return [x, other, gain], [
        te.compute((rows, width), lambda i, j: centred[i, j] * unary("rsqrt", square[i] + 1.0) * gain[j], "o")
    ]


def attention(
    rows: te.Dim, keys: te.Dim, heads: int = 2, depth: int = 5, width: int = 6, masked: bool = True
) -> Definition:
    """Heads side by side in rows of memory, as a projection leaves them; no heads at all for 0."""
    h = (heads,) * (heads > 0)
    q, k = te.placeholder((rows, *h, depth), name="q"), te.placeholder((keys, *h, depth), name="k")
    v, mask = te.placeholder((keys, *h, width), name="v"), te.placeholder((rows, keys), name="mask")
    d, j = te.reduce_axis(depth, "d"), te.reduce_axis(keys, "j")
    scores = te.compute((*h, rows, keys), lambda *i: te.sum(q[i[-2], *i[:-2], d] * k[i[-1], *i[:-2], d], d), "scores")
    final = te.compute(scores.shape, lambda *i: scores[i] * 0.5 + mask[i[-2:]] if masked else scores[i], "final")
    m, t = te.reduce_axis(keys, "m"), te.reduce_axis(keys, "t")
    largest = te.compute((*h, rows), lambda *i: te.max(final[(*i, m)], m), "largest")
    powers = te.compute(final.shape, lambda *i: unary("exp", final[i] - largest[i[:-1]]), "powers")
    total = te.compute((*h, rows), lambda *i: te.sum(powers[(*i, t)], t), "total")
    weights = te.compute(final.shape, lambda *i: powers[i] / total[i[:-1]], "weights")
    result = te.compute((*h, rows, width), lambda *i: te.sum(weights[(*i[:-1], j)] * v[j, *i[:-2], i[-1]], j), "result")
    order = (lambda *i: result[(i[1], i[0], i[2])]) if heads else (lambda *i: result[i] * 2.0)
    inputs = [q, k, v, mask] if masked else [q, k, v]
    return inputs, [te.compute((rows, *h, width), order, "o")]


def concat(*widths: int) -> Definition:
    parts = [te.placeholder((3, w), name=f"x{i}") for i, w in enumerate(widths)]

    def body(i: object, j: object) -> object:
        offset = sum(widths[:-1])
        value = parts[-1][i, j - offset]
        for part, end in reversed(list(zip(parts[:-1], np.cumsum(widths[:-1]).tolist(), strict=True))):
            value = select(j < end, part[i, j - (end - part.shape[1])], value)
        return value

    return parts, [te.compute((3, sum(widths)), body, "o")]


def prefix_sums(rows: te.Dim, n: te.Dim, block: int = 8) -> Definition:
    """Within blocks."""
    x, k = te.placeholder((rows, n), name="x"), te.reduce_axis(block, "k")
    sums = te.compute(
        (rows, n), lambda r, i: te.sum(select(k <= i % block, x[r, i // block * block + k], 0.0), axis=k), "sums"
    )
    return [x], [te.compute((rows, n), lambda r, i: sums[r, i] * 2.0, "o")]


def global_mean(*shape: int) -> Definition:
    x = te.placeholder(shape, name="x")
    h, w = te.reduce_axis(shape[2], "h"), te.reduce_axis(shape[3], "w")
    s = te.compute(shape[:2], lambda n, c: te.sum(x[n, c, h, w], axis=(h, w)), "s")
    return [x], [te.compute(shape[:2], lambda n, c: s[n, c] * (1.0 / (shape[2] * shape[3])), "o")]


def transpose(*shape: te.Dim) -> Definition:
    x = te.placeholder(shape, name="x")
    return [x], [te.compute(shape[::-1], lambda *i: x[i[::-1]] * 2.0, "o")]


CASES: dict[str, Callable[[], Definition]] = {
    "softmax-last": lambda: softmax(3, 21),
    "softmax-short": lambda: softmax(5, 3),
    "softmax-middle": lambda: softmax(2, 5, 9, axis=1),
    "softmax-long-rows": lambda: softmax(2, 70),
    "matmul": lambda: matmul(11, 13, 7),
    "matmul-transposed": lambda: matmul(11, 13, 7, transposed=True),
    "matmul-batched": lambda: matmul(5, 6, 7, batch=(2, 3)),
    "matmul-batched-transposed": lambda: matmul(5, 6, 7, transposed=True, batch=(2, 3)),
    "matmul-one-row": lambda: matmul(1, 19, 8),
    "matmul-one-row-transposed": lambda: matmul(1, 9, 37, transposed=True),
    "matmul-one-row-transposed-batched": lambda: matmul(1, 5, 40, transposed=True, batch=(3,)),
    "matmul-one-column": lambda: matmul(9, 1, 8),
    "matmul-scalar": lambda: matmul(1, 1, 1),
    "matmul-row-blocks": lambda: matmul(40, 9, 33),
    "matmul-copied-panels": lambda: matmul(50, 9, 5),
    "packed": lambda: packed_matmul(9, 19, 6, 8),
    "packed-one-row": lambda: packed_matmul(1, 24, 6, 8),
    "conv3x3": lambda: blocked_conv(8, 12, 7, 3, 1, 1),
    "conv3x3-stride": lambda: blocked_conv(4, 8, 9, 3, 2, 1),
    "conv1x1": lambda: blocked_conv(8, 8, 5, 1, 1, 0),
    "depthwise": lambda: depthwise(8, 9),
    "depthwise-padded": lambda: depthwise(8, 7, pad=1),
    "depthwise-padded-stride": lambda: depthwise(8, 9, pad=1, stride=2),
    "max-pool": lambda: max_pool(3, 9, 3, 2, 1),
    "max-pool-wide": lambda: max_pool(2, 12, 2, 2, 0),
    "layer-norm": lambda: layer_norm(3, 18),
    "attention": lambda: attention(8, 16),
    "attention-tails": lambda: attention(13, 19, heads=3),
    "attention-one-head": lambda: attention(5, 11, heads=0),
    "attention-without-a-mask": lambda: attention(7, 9, depth=4, width=17, masked=False),
    "attention-of-one-query": lambda: attention(1, 9),
    "attention-of-one-key": lambda: attention(9, 1),
    "concat": lambda: concat(3, 8, 2),
    "global-mean": lambda: global_mean(1, 5, 4, 3),
    "transpose": lambda: transpose(3, 5, 9),
    "prefix-sums": lambda: prefix_sums(3, 40),
    "prefix-sums-odd": lambda: prefix_sums(2, 37),
    "prefix-sums-short": lambda: prefix_sums(2, 5, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_static_shapes(name: str) -> None:
    check(CASES[name]())


TINY_CACHES = dataclasses.replace(SMALL, l1_bytes=64, l2_bytes=1024, cores=2)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("rows", [1, 5, 13])
def test_a_matrix_larger_than_the_first_cache_is_streamed_for_a_few_rows(rows: int, batch: tuple[int, ...]) -> None:
    inputs, outputs = matmul(rows, 43, 37, batch=batch)
    trace = str(build_schedule("k", inputs, outputs, {}, TINY_CACHES).trace)
    assert "cache_read" not in trace  # in place, where tall products copy it into panels
    check((inputs, outputs), target=TINY_CACHES)


def _shares_of_depth(definition: Definition) -> int:
    decided = {d.name: d.value for d in _schedule(definition, TINY_CACHES).decided}
    return int(decided.get("c.shares_of_depth", 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("followed", [False, True])
def test_threads_share_out_the_reduction_where_there_are_few_columns(rows: int, followed: bool) -> None:
    inputs, outputs = matmul(rows, 33, 512)
    definition = (inputs, outputs) if followed else (inputs[:2], [t for t in outputs[0].inputs() if t.name == "c"])
    schedule = _schedule(definition, TINY_CACHES)
    (partial,) = {s.tensor for s in schedule.kernel.statements.values() if s.tensor.name == "c.rf"}
    share, *_ = schedule[partial].loops
    assert schedule.loop(share).kind is LoopKind.PARALLEL and schedule.extent(share) == 2
    check(definition, target=TINY_CACHES)


def test_threads_share_out_the_columns_where_each_gets_whole_pages_or_the_reduction_has_no_equal_parts() -> None:
    assert _shares_of_depth(matmul(1, 2047, 512)) == 2
    assert _shares_of_depth(matmul(1, 2048, 512)) == 1
    assert _shares_of_depth(matmul(1, 33, 511)) == 1


@pytest.mark.parametrize(
    ("registers", "rows", "depth", "vectors"), [(32, 192, 256, 4), (32, 96, 512, 3), (16, 192, 256, 2)]
)
def test_tiles_for_many_rows_of_a_matrix_that_is_copied_are_wide(
    registers: int, rows: int, depth: int, vectors: int
) -> None:
    target = dataclasses.replace(SMALL, vector_bytes=64, vector_registers=registers, l1_bytes=49152, l2_bytes=2 << 20)
    decided = {d.name: d.value for d in _schedule(matmul(rows, 192, depth), target).decided}
    assert decided["c.pack"]
    tile = decided["c.tile"]
    assert isinstance(tile, tuple) and tile[2] == vectors


def test_an_operand_that_a_streamed_product_computes_first_is_vectors() -> None:
    x, w = te.placeholder((5, 37), name="x"), te.placeholder((37, 43), name="w")
    r = te.reduce_axis(37, "r")
    gate = te.compute((5, 37), lambda i, k: x[i, k] * unary("sigmoid", x[i, k]), "gate")
    product = te.compute((5, 43), lambda i, j: te.sum(gate[i, r] * w[r, j], r), "c")
    schedule = _schedule(([x, w], [product]), TINY_CACHES)
    assert any(d.name == "c.streamed" and d.value for d in schedule.decided)
    assert schedule.loop(schedule["gate"].loops[-1]).kind is LoopKind.VECTOR
    check(([x, w], [product]), target=TINY_CACHES)


def test_a_product_of_a_few_steps_is_not_streamed() -> None:
    inputs, outputs = matmul(13, 600, 6)
    schedule = build_schedule("k", inputs, outputs, {}, TINY_CACHES)
    assert [d.value for d in schedule.decided if d.name.endswith(".streamed")] == [False]


def test_a_1x1_convolution_goes_through_its_image_as_one_line_of_pixels() -> None:
    inputs, outputs = blocked_conv(8, 12, 5, 1, 1, 0)
    (output,) = build_schedule("k", inputs, outputs, {}, SMALL).kernel.outputs
    assert output.shape == (1, 3, 25, 4)


def test_rows_from_the_second_cache_are_read_by_few_wide_tiles() -> None:
    space, registers, depth = (1, 840, 8), 32, 64

    def tile(row: float) -> tuple[int, int, int]:
        return choose_tile(space, registers, range(1, 5), lambda vectors: Arrival(0.5, 0.5, row), depth)

    assert tile(0.5)[2] > tile(0.0)[2]


def test_a_depthwise_tile_keeps_its_rows_in_registers() -> None:
    inputs, outputs = depthwise(8, 40, pad=1)
    (tile,) = (d.value for d in build_schedule("k", inputs, outputs, {}, SMALL).decided if d.name.endswith(".tile"))
    assert isinstance(tile, tuple) and tile[0] * tile[1] * tile[2] <= SMALL.vector_registers // 2


WIDE = dataclasses.replace(SMALL, vector_bytes=64, vector_registers=32, l1_bytes=1 << 15, l2_bytes=1 << 20)


@pytest.mark.parametrize(("rows", "steps"), [(6, 0), (49, 2), (196, 16), (784, 0)])
def test_tiles_share_in_asking_for_the_weights_of_the_next_column(rows: int, steps: int) -> None:
    """A pointwise convolution: few tiles ask often, more once per block of channels, one or many tiles never."""
    x, w = te.placeholder((4, rows, 16), name="x"), te.placeholder((12, 4, 16, 16), name="w")
    co, ci = te.reduce_axis(4, "co"), te.reduce_axis(16, "ci")
    y = te.compute((12, rows, 16), lambda o, p, i: te.sum(x[co, p, ci] * w[o, co, ci, i], (co, ci)), "y")
    schedule = build_schedule("k", [x, w], [y], {}, WIDE)
    assert {d.name: d.value for d in schedule.decided}["y.steps_per_request"] == steps
    assert ("around" in str(schedule.trace)) == bool(steps)
    assert verify_kernel(schedule.kernel).violation is None


def test_a_matrix_is_copied_into_panels_for_many_rows() -> None:
    inputs, outputs = matmul(50, 43, 21)
    assert "cache_read" in str(build_schedule("k", inputs, outputs, {}, TINY_CACHES).trace)
    check((inputs, outputs), target=TINY_CACHES)


@pytest.mark.parametrize(("rows", "as_sums"), [(1, True), (2, False)])
def test_rows_of_memory_times_one_vector_are_sums_along_memory(rows: int, as_sums: bool) -> None:
    inputs, outputs = matmul(rows, 9, 40, transposed=True)
    trace = str(build_schedule("k", inputs, outputs, {}, SMALL).trace)
    assert ("rfactor" in trace) == as_sums


def test_only_the_operand_that_needs_it_is_copied_of_a_tensor_read_twice() -> None:
    """The product of a matrix with its own transpose."""
    x, k = te.placeholder((40, 7), name="x"), te.reduce_axis(7, "k")
    product = te.compute((40, 40), lambda i, j: te.sum(x[i, k] * x[j, k], k), "c")
    text = nest_text(lower_kernel(schedule_kernel("k", [x], [product], {}, SMALL)))
    updates = [line for line in text.splitlines() if "x.packed[" in line and "c.acc[" in line]
    assert updates and all(line.count("x.packed[") == line.count("x[") == 1 for line in updates), text
    check(([x], [product]))


S = Var("S")
SYMBOLIC: dict[str, Callable[[], Definition]] = {
    "softmax": lambda: softmax(S, S),
    "matmul-rows": lambda: matmul(S, 9, 5),
    "matmul-all": lambda: matmul(S, S, S),
    "matmul-transposed": lambda: matmul(S, S, 5, transposed=True, batch=(2,)),
    "matmul-one-row-transposed": lambda: matmul(1, S, 35, transposed=True),
    "packed": lambda: packed_matmul(S, 19, 6, 8),
    "layer-norm": lambda: layer_norm(S, 12),
    "attention": lambda: attention(S, S),
    "attention-of-many-keys": lambda: attention(6, S),
    "transpose": lambda: transpose(S, 3, 5),
    "prefix-sums": lambda: prefix_sums(3, S),
}


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("name", SYMBOLIC)
def test_symbolic_sizes(name: str, size: int) -> None:
    check(SYMBOLIC[name](), {S: size})


@pytest.mark.parametrize(("along", "lanes"), [(False, 4), (True, 2)])
def test_vectors_are_as_wide_as_what_varies_along_them(along: bool, lanes: int) -> None:
    numbers, table = te.placeholder((8, 32), "int64", name="numbers"), te.placeholder((3, 32), name="table")
    rows = te.compute((8, 32), lambda i, j: table[numbers[i, j if along else 0], j], "rows")
    nest = lower_kernel(schedule_kernel("k", [numbers, table], [rows], {}, SMALL))
    assert f"for ji in range({lanes}) vector" in nest_text(nest)
    check(([numbers, table], [rows]))


def test_attention_stores_no_more_scores_than_a_tile_of_rows_has() -> None:
    inputs, outputs = attention(64, 48)
    kernel = schedule_kernel("k", inputs, outputs, {}, SMALL)
    stored = {n.tensor.name: n.shape for n, _ in walk(kernel.tree) if isinstance(n, Allocate)}
    assert stored["scores"] == stored["weights"] == (1, 2, 48)
    assert stored["powers"] == (1, 1, 48)


def test_prefix_sums_are_added_up_in_a_vector() -> None:
    schedule = _schedule(prefix_sums(3, 40), SMALL)
    element, lane = (schedule.loop(x) for x in schedule["sums.acc"].loops[-2:])
    assert (element.kind, lane.kind, lane.extent) == (LoopKind.UNROLL, LoopKind.VECTOR, 8)


def test_walks_over_a_row_ask_for_the_next_one() -> None:
    inputs, outputs = softmax(6, 48)
    text = nest_text(lower_kernel(schedule_kernel("k", inputs, outputs, {}, SMALL)))
    asked = [line.split()[1:] for line in text.splitlines() if "prefetch" in line]
    assert [words[0].split("[")[0] for words in asked] == ["x", outputs[0].name], text
    assert all("+ 48)" in " ".join(words) for words in asked), text


def test_a_row_that_is_walked_over_once_needs_no_hints() -> None:
    x, k = te.placeholder((6, 40), name="x"), te.reduce_axis(40, "k")
    total = te.compute((6,), lambda i: te.sum(x[i, k], axis=k), "total")
    assert "prefetch" not in nest_text(lower_kernel(schedule_kernel("k", [x], [total], {}, SMALL)))


def test_a_row_that_fills_the_cache_is_not_asked_for_ahead() -> None:
    inputs, outputs = softmax(6, 400)
    assert "prefetch" not in nest_text(lower_kernel(schedule_kernel("k", inputs, outputs, {}, SMALL)))


def _schedule(definition: Definition, target: Target) -> Schedule:
    return build_schedule("k", *definition, {}, target)


@pytest.mark.parametrize(("size", "blocks"), [(21, 4), (9, 0)])
def test_an_image_larger_than_the_cache_is_padded_for_blocks_of_rows(size: int, blocks: int) -> None:
    target = dataclasses.replace(SMALL, l2_bytes=8192, cores=2)
    definition = blocked_conv(4, 8, size, 3, 1, 1)
    schedule = _schedule(definition, target)
    shared = [x for x in schedule["y.padded"].loops if x in schedule["o"].loops]
    assert [schedule.extent(x) for x in shared] == [blocks] * bool(blocks)
    check(definition, target=target)


@pytest.mark.parametrize(("kernel", "pad"), [(3, 1), (1, 0)])
def test_a_strided_convolution_reads_its_image_in_place_in_blocks_of_rows(kernel: int, pad: int) -> None:
    target = dataclasses.replace(SMALL, l2_bytes=8192)
    definition = blocked_conv(4, 8, 20, kernel, 2, pad)
    schedule = _schedule(definition, target)
    assert "y.padded" not in {s.tensor.name for s in schedule.kernel.statements.values()}
    (rows,) = (d.value for d in schedule.decided if d.name.endswith(".rows_per_block"))
    assert isinstance(rows, int) and 0 < rows < 10
    check(definition, target=target)


def test_a_depthwise_convolution_reads_its_image_in_place() -> None:
    schedule = _schedule(depthwise(8, 7, pad=1), SMALL)
    assert "padded" not in {s.tensor.name for s in schedule.kernel.statements.values()}


def _decided(definition: Definition, target: Target, what: str) -> object:
    return next(d.value for d in _schedule(definition, target).decided if d.name.endswith(f".{what}"))


def _most_work(extent: int, block: int, rows: int, tile: int, cores: int) -> int:
    """What :func:`longest_share` counts, iteration by iteration."""
    work = [min(block, extent - i) * min(tile, rows - j) for i in range(0, extent, block) for j in range(0, rows, tile)]
    return max(int(share.sum()) for share in np.array_split(np.array(work), cores))


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
@pytest.mark.parametrize(("extent", "block"), [(16, 3), (16, 4), (3, 2), (1, 1), (5, 8)])
@pytest.mark.parametrize(("rows", "tile"), [(197, 14), (28, 14), (1, 1), (3, 4)])
def test_the_longest_share_is_that_of_the_thread_with_the_most_work(
    extent: int, block: int, rows: int, tile: int, cores: int
) -> None:
    assert longest_share(extent, block, rows, tile, cores) == _most_work(extent, block, rows, tile, cores)


@pytest.mark.parametrize(
    ("count", "cores", "block"),
    [(16, 1, 3), (16, 2, 2), (16, 4, 2), (18, 2, 3), (64, 2, 2), (15, 2, 3), (3, 1, 2), (3, 2, 0), (2, 2, 2)],
)
def test_blocks_of_columns_make_equal_shares(count: int, cores: int, block: int) -> None:
    depth, rows = 64, 197
    fitting = 2 if count == 3 else 3
    target = dataclasses.replace(SMALL, vector_registers=32, l2_bytes=2 * fitting * depth * 12 * 4, cores=cores)
    definition = packed_matmul(rows, count * 12, depth, 12)
    assert _decided(definition, target, "panels_per_block") == block
    if count == 3:
        check(packed_matmul(23, count * 12, depth, 12), target=target)


@pytest.mark.parametrize(
    ("size", "channels", "cores", "shares"),
    [(22, 8, 2, 2), (22, 16, 4, 4), (20, 8, 2, 1), (22, 12, 2, None), (22, 8, 1, None)],
)
def test_cores_get_columns_of_their_own_where_blocks_of_rows_make_no_equal_shares(
    size: int, channels: int, cores: int, shares: int | None
) -> None:
    """There are 11 or 10 rows in blocks of two, and as many columns as channels are four times."""
    target = dataclasses.replace(SMALL, l2_bytes=8192, cores=cores)
    definition = blocked_conv(4, channels, size, 3, 2, 1)
    decided = {d.name: d.value for d in _schedule(definition, target).decided}
    assert decided["y.rows_per_block"] == 2
    assert decided.get("y.column_shares") == shares
    check(definition, target=target)
