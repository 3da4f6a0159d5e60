"""Attention on a GPU: one launch, without a matrix of scores in memory, that computes what the numpy evaluator does."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import pytest
from cuda_harness import Order, compile_for_cpu, harness_available

from polycomp import te
from polycomp.codegen.cuda.emit import EmittedCuda, emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source, find_nvrtc
from polycomp.decisions import Decisions
from polycomp.expr import Expr, Var, cast, const, select, simplify, substitute, unary, wrap
from polycomp.loops import Alloc, LoopNest, Scope, lower_kernel
from polycomp.loops.interpreter import interpret
from polycomp.loops.visit import walk
from polycomp.poly.legality import verify_kernel
from polycomp.schedules.library.choose import build_schedule
from polycomp.schedules.library.gpu.prepare import prepare
from polycomp.schedules.library.gpu.scores import Attention, as_attention
from polycomp.schedules.library.gpu.tiles import ROWS, shared_bytes, tile_of
from polycomp.schedules.schedule import Schedule
from polycomp.target import Target, cuda_target
from polycomp.te import Tensor
from polycomp.te.evaluate import evaluate

needs_harness = pytest.mark.skipif(not harness_available(), reason="needs g++ 12 or later")
needs_nvrtc = pytest.mark.skipif(find_nvrtc() is None, reason="NVRTC is not installed")

CUDA, TF32 = cuda_target(), cuda_target(tf32=True)
BUSY = dataclasses.replace(CUDA, cores=1)
"""One multiprocessor, which has many blocks."""

NUMPY = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
    "bool": np.bool_}  # fmt: skip
_LIBRARY = Decisions()


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel, and what it is compiled for."""

    inputs: list[Tensor]
    output: Tensor
    target: Target = CUDA


def softmax(scores: Tensor, narrow: Callable[[Expr], Expr]) -> Tensor:
    shape, keys = scores.shape, scores.shape[-1]
    n, m = te.reduce_axis(keys, "n"), te.reduce_axis(keys, "n2")
    largest = te.compute(shape[:-1], lambda *i: te.max(wide(scores[(*i, n)]), axis=n), "largest")
    powers = te.compute(shape, lambda *i: unary("exp", wide(scores[i]) - largest[i[:-1]]), "powers")
    total = te.compute(shape[:-1], lambda *i: te.sum(powers[(*i, m)], axis=m), "total")
    inverse = te.compute(shape[:-1], lambda *i: unary("reciprocal", total[i]), "inverse")
    return te.compute(shape, lambda *i: narrow(powers[i] * inverse[i[:-1]]), "weights")


def wide(e: Expr) -> Expr:
    return cast("float32", e) if e.dtype.bytes < 4 else e


def product(shape: tuple[te.Dim, ...], depth: te.Dim, factors: Callable[..., tuple[Expr, Expr]], name: str) -> Tensor:
    k = te.reduce_axis(depth, f"{name}.k")

    def body(*i: Expr) -> Expr:
        left, right = factors(*i, k)
        return te.sum(wide(left) * wide(right), axis=k)

    return te.compute(shape, body, name)


def heads(
    queries: te.Dim = 17,
    keys: te.Dim = 45,
    width: int = 16,
    values: int = 12,
    dtype: str = "float32",
    masked: Callable[[Expr, Expr, Expr], Expr] = lambda score, i, j: score,
    bias: bool = False,
    target: Target = CUDA,
    batch: te.Dim = 1,
    count: int = 2,
) -> Case:
    """Attention of several heads, whose rows lie between those of others, as in a transformer."""
    q, k, v = (
        te.placeholder((batch, n, count, size), dtype, name)
        for n, size, name in ((queries, width, "q"), (keys, width, "k"), (keys, values, "v"))
    )
    added = te.placeholder((batch, 1, queries, keys), dtype, "added")

    def narrow(e: Expr) -> Expr:
        return e if dtype in ("float32", "float64") else cast(dtype, e)

    shape = (batch, count, queries, keys)
    sums = product(shape, width, lambda b, h, i, j, d: (q[b, i, h, d], k[b, j, h, d]), "sums")
    scaled = te.compute(shape, lambda *i: narrow(sums[i] * 0.25), "scaled")

    def score(b: Expr, h: Expr, i: Expr, j: Expr) -> Expr:
        return masked(scaled[b, h, i, j] + added[b, 0, i, j] if bias else scaled[b, h, i, j], i, j)

    weights = softmax(te.compute(shape, score, "scores"), narrow)
    out = product((*shape[:-1], values), keys, lambda b, h, i, j, n: (weights[b, h, i, n], v[b, n, h, j]), "out")
    turned = te.compute((batch, queries, count, values), lambda b, i, h, j: narrow(out[b, h, i, j]), "turned")
    return Case([q, k, v, *([added] if bias else [])], turned, target)


def causal(score: Expr, i: Expr, j: Expr) -> Expr:
    return select(j <= i, score, const(-math.inf, score.dtype))


def grouped() -> Case:
    """Two heads of keys, for three heads of queries each, which are rows of one product."""
    q, k, v = (te.placeholder(shape, name=n) for n, shape in
               (("q", (2, 2, 3, 7, 8)), ("k", (2, 2, 20, 8)), ("v", (2, 2, 20, 12))))  # fmt: skip
    shape = (2, 2, 3, 7, 20)
    sums = product(shape, 8, lambda b, h, g, i, j, d: (q[b, h, g, i, d], k[b, h, j, d]), "sums")
    scores = te.compute(shape, lambda b, h, g, i, j: causal(sums[b, h, g, i, j], i + 13, j), "scores")
    weights = softmax(scores, lambda e: e)
    return Case(
        [q, k, v],
        product((*shape[:-1], 12), 20, lambda b, h, g, i, j, n: (weights[b, h, g, i, n], v[b, h, n, j]), "out"),
    )


def repeated(target: Target = CUDA) -> Case:
    """Every head of keys for two heads of queries, and a bias for each of these."""
    q, k, v, bias = (te.placeholder(shape, name=n) for n, shape in
                     (("q", (4, 7, 8)), ("k", (2, 20, 8)), ("v", (2, 20, 12)), ("bias", (4, 7, 20))))  # fmt: skip
    sums = product((4, 7, 20), 8, lambda h, i, j, d: (q[h, i, d], k[h // 2, j, d]), "sums")
    weights = softmax(te.compute((4, 7, 20), lambda *i: sums[i] + bias[i], "scores"), lambda e: e)
    out = product((4, 7, 12), 20, lambda h, i, j, n: (weights[h, i, n], v[h // 2, n, j]), "out")
    return Case([q, k, v, bias], out, target)


def several_walks() -> Case:
    """Rows of which more is read than a softmax needs, in several places."""
    q, k, v = (te.placeholder(shape, name=n) for n, shape in (("q", (7, 8)), ("k", (20, 8)), ("v", (20, 12))))
    scores = product((7, 20), 8, lambda i, j, d: (q[i, d], k[j, d]), "sums")
    a, b, c = (te.reduce_axis(20, n) for n in "abc")
    largest = te.compute((7,), lambda i: te.max(scores[i, a], axis=a), "largest")
    least = te.compute((7,), lambda i: te.min(scores[i, b], axis=b), "least")
    root = te.compute((7,), lambda i: unary("sqrt", largest[i] - least[i] + 1.0), "root")
    powers = te.compute((7, 20), lambda i, j: unary("exp", (scores[i, j] - largest[i]) / root[i]), "powers")
    total = te.compute((7,), lambda i: te.sum(powers[i, c], axis=c), "total")
    weights = te.compute((7, 20), lambda i, j: powers[i, j] * root[i] / total[i] + largest[i], "weights")
    return Case([q, k, v], product((7, 12), 20, lambda i, j, n: (weights[i, n], v[n, j]), "out"))


def one_head_of_keys() -> Case:
    """One head of keys for all, of which some do not count."""
    q, k, v = (te.placeholder(shape, name=n) for n, shape in
               (("q", (2, 4, 7, 8)), ("k", (2, 20, 8)), ("v", (2, 20, 12))))  # fmt: skip
    counts = te.placeholder((2, 20), "bool", "counts")
    sums = product((2, 4, 7, 20), 8, lambda b, h, i, j, d: (q[b, h, i, d], k[b, j, d]), "sums")
    scores = te.compute(sums.shape, lambda b, h, i, j: select(counts[b, j], sums[b, h, i, j], -1e3), "scores")
    weights = softmax(scores, lambda e: e)
    out = product((2, 4, 7, 12), 20, lambda b, h, i, j, n: (weights[b, h, i, n], v[b, n, j]), "out")
    return Case([q, k, v, counts], out)


def matrices() -> Case:
    """Without heads; keys side by side in memory."""
    q, k, v = (te.placeholder(shape, name=n) for n, shape in (("q", (7, 8)), ("k", (8, 20)), ("v", (20, 12))))
    weights = softmax(product((7, 20), 8, lambda i, j, d: (q[i, d], k[d, j]), "sums"), lambda e: e)
    return Case([q, k, v], product((7, 12), 20, lambda i, j, n: (weights[i, n], v[n, j]), "out"))


CASES: Mapping[str, Callable[[], Case]] = {
    "odd": heads,
    "even": lambda: heads(32, 64, 32, 32, bias=True),
    "causal": lambda: heads(33, 33, masked=causal),
    "image": lambda: heads(18, 197, 64, 64),
    "few": lambda: heads(4, 4, 4, 4),
    "long": lambda: heads(5, 512, 64, 64),
    "wide": lambda: heads(17, 45, 20, 300),
    "float64": lambda: heads(dtype="float64"),
    "float16": lambda: heads(dtype="float16", bias=True),
    "bfloat16": lambda: heads(17, 197, 64, 64, dtype="bfloat16", masked=causal),
    "tf32": lambda: heads(33, 128, 32, 32, bias=True, target=TF32),
    "odd tf32": lambda: heads(17, 45, 20, 20, masked=causal, target=TF32),
    "busy": lambda: heads(70, 64, 32, 32, target=dataclasses.replace(TF32, cores=1)),
    "open batch": lambda: heads(batch=te.size("b"), bias=True),
    "open rows": lambda: heads(te.size("s")),
    "grouped": grouped,
    "repeated": repeated,
    "repeated tf32": lambda: repeated(TF32),
    "one head of keys": one_head_of_keys,
    "matrices": matrices,
    "several walks": several_walks,
}
SIZES = {"b": 2, "s": 19}


@dataclasses.dataclass(frozen=True)
class Built:
    case: Case
    schedule: Schedule
    nest: LoopNest
    emitted: EmittedCuda


def scheduled(case: Case, name: str = "kernel", decisions: Decisions = _LIBRARY) -> Schedule:
    return build_schedule(name, case.inputs, [case.output], {}, case.target, decisions)


def build(case: Case, name: str) -> Built:
    schedule = scheduled(case, name.replace(" ", "_"))
    nest = lower_kernel(schedule.kernel)
    return Built(case, schedule, nest, emit_cuda(nest, case.target, {}))


@functools.cache
def built(name: str) -> Built:
    return build(CASES[name](), name)


def recognised(case: Case) -> Attention:
    _, _, (attention,) = prepare([case.output], case.inputs, case.target)
    assert isinstance(attention, Attention)
    return attention


def size_of(dim: te.Dim) -> int:
    value = simplify(substitute(wrap(dim), {Var(name): const(n) for name, n in SIZES.items()}))
    return int(value.value)  # type: ignore[attr-defined]


def values_and_result(case: Case) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal([size_of(d) for d in t.shape]).astype(NUMPY[t.dtype.value])
        if t.dtype.value != "bool"
        else rng.random([size_of(d) for d in t.shape]) < 0.7
        for t in case.inputs
    ]
    sizes = {Var(n): value for n, value in SIZES.items()}
    (expected,) = evaluate([case.output], dict(zip(case.inputs, arrays, strict=True)), sizes)
    return arrays, expected


def assert_close(found: np.ndarray, expected: np.ndarray, case: Case) -> None:
    rough = {2: 1e-2, 4: 5e-3 if case.target.tf32 else 1e-5, 8: 1e-12}[expected.dtype.itemsize]
    shaped = found.reshape(expected.shape)
    np.testing.assert_allclose(shaped.astype(float), expected.astype(float), rtol=rough, atol=rough)


@pytest.mark.parametrize("name", CASES)
def test_one_launch_is_proven_and_keeps_scores_to_itself(name: str) -> None:
    found = built(name)
    assert verify_kernel(found.schedule.kernel).violation is None
    assert len(found.emitted.launches) == 1
    assert found.emitted.workspace.shared == 0


@pytest.mark.parametrize("name", ["few", "matrices"])
def test_the_interpreter_gives_what_numpy_does(name: str) -> None:
    found = built(name)
    arrays, expected = values_and_result(found.case)
    shaped = [x.reshape(b.shape) for x, b in zip(arrays, found.nest.inputs, strict=True)]
    (result,) = interpret(found.nest, shaped, {})
    assert_close(result, expected, found.case)


@functools.cache
def compiled(names: tuple[str, ...]) -> object:
    """All cases at once: each run of g++ takes a while."""
    emitted = [built(name).emitted for name in names]
    functions = [launch.function for e in emitted for launch in e.launches]
    return compile_for_cpu([e.source for e in emitted], functions, races=True)


def run(found: Built, kernels: object, arrays: list[np.ndarray], expected: np.ndarray, order: Order) -> np.ndarray:
    result, status = np.zeros_like(expected), np.zeros(3, np.int64)
    workspace = np.full(max(16, size_of(found.emitted.workspace.shared)), 0xEE, np.uint8)
    words = [x.view(np.uint16) if x.dtype.itemsize == 2 else x for x in (*arrays, result)]
    arguments = [*words, *(SIZES[v.name] for v in found.nest.sizes), workspace, status]
    for launch in found.emitted.launches:
        grid = size_of(launch.grid)
        kernels.launch(launch.function, grid, launch.block, launch.shared_bytes, arguments, order)  # type: ignore[attr-defined]
    assert status.tolist() == [0, 0, 0]
    return result


@needs_harness
@pytest.mark.parametrize("name", CASES)
def test_threads_in_any_order_and_without_races_give_what_numpy_does(name: str) -> None:
    kernels, found = compiled(tuple(CASES)), built(name)
    arrays, expected = values_and_result(found.case)
    for order in (Order.FORWARD, Order.BACKWARD):
        assert_close(run(found, kernels, arrays, expected, order), expected, found.case)


TYPICAL = {
    "bert": lambda: heads(128, 128, 64, 64, bias=True),
    "bert tf32": lambda: heads(128, 128, 64, 64, bias=True, target=TF32),
    "vit": lambda: heads(197, 197, 64, 64),
    "vit float16": lambda: heads(197, 197, 64, 64, dtype="float16"),
    "gpt2": lambda: heads(64, 64, 64, 64, masked=causal),
    "many": lambda: heads(128, 128, 64, 64, bias=True, batch=16, count=12, target=BUSY),
}


@needs_nvrtc
@pytest.mark.parametrize("name", TYPICAL)
def test_nothing_is_spilled(name: str) -> None:
    found = build(TYPICAL[name](), name)
    code = compile_source(full_source(found.emitted), name, found.case.target.features)
    for resources in (r for functions in code.resources.values() for r in functions.values()):
        assert (resources.spill_store_bytes, resources.spill_load_bytes, resources.stack_bytes) == (0, 0, 0)


@pytest.mark.parametrize("name", ["bert", "bert tf32", "vit float16", "many"])
def test_every_number_of_rows_is_legal_and_takes_as_much_memory_as_it_was_chosen_for(name: str) -> None:
    case = TYPICAL[name]()
    attention = recognised(case)
    tried = 0
    for rows in ROWS:
        tile = tile_of(attention, case.target, rows)
        if tile is None:
            continue
        schedule = scheduled(case, decisions=Decisions().replace("out.product.rows", rows))
        assert verify_kernel(schedule.kernel).violation is None
        buffers = [s.buffer for s in walk(lower_kernel(schedule.kernel).body) if isinstance(s, Alloc)]
        used = sum(math.prod(b.shape) * b.dtype.bytes for b in buffers if b.scope is Scope.SHARED)  # type: ignore[arg-type]
        assert used == shared_bytes(attention, tile) <= 96 << 10
        tried += 1
    assert tried


def test_many_blocks_have_more_rows_and_less_memory_each() -> None:
    few, many = (scheduled(heads(128, 128, 64, 64, dtype="float16", batch=n, count=12)) for n in (1, 64))
    assert [d.value for s in (few, many) for d in s.decided if d.name.endswith("rows")] == [16, 64]


APART: Mapping[str, Callable[[], Case]] = {
    "open keys": lambda: heads(te.size("s"), te.size("s"), 16, 16, bias=True),
    "too many keys": lambda: heads(40, 1500, 16, 16),
}


@pytest.mark.parametrize("name", APART)
def test_keys_that_do_not_fit_get_products_in_tiles_and_rows_that_are_read_once(name: str) -> None:
    found = build(APART[name](), name)
    assert verify_kernel(found.schedule.kernel).violation is None
    decided = {d.name for d in found.schedule.decided}
    assert {"sums.product.tile", "out.product.tile", "weights.threads"} <= decided
    assert sum("expf" in part for part in found.emitted.source.split("__global__")) == 1


@needs_harness
@pytest.mark.parametrize("name", APART)
def test_launches_of_their_own_give_what_numpy_does(name: str) -> None:
    found = build(APART[name](), name)
    arrays, expected = values_and_result(found.case)
    kernels = compile_for_cpu([found.emitted.source], [x.function for x in found.emitted.launches], races=True)
    assert_close(run(found, kernels, arrays, expected, Order.BACKWARD), expected, found.case)


def linear() -> Case:
    """Weights that are no softmax: nothing is reduced between the products."""
    q, k, v = (te.placeholder(shape, name=n) for n, shape in (("q", (7, 8)), ("k", (8, 20)), ("v", (20, 12))))
    sums = product((7, 20), 8, lambda i, j, d: (q[i, d], k[d, j]), "sums")
    squares = te.compute((7, 20), lambda i, j: sums[i, j] * sums[i, j], "squares")
    return Case([q, k, v], product((7, 12), 20, lambda i, j, n: (squares[i, n], v[n, j]), "out"))


def along_columns() -> Case:
    """A softmax of columns, which are no rows of the second product."""
    q, k, v = (te.placeholder(shape, name=n) for n, shape in (("q", (20, 8)), ("k", (8, 20)), ("v", (20, 12))))
    sums = product((20, 20), 8, lambda i, j, d: (q[i, d], k[d, j]), "sums")
    turned = te.compute((20, 20), lambda i, j: sums[j, i], "turned")
    weights = softmax(turned, lambda e: e)
    return Case([q, k, v], product((20, 12), 20, lambda i, j, n: (weights[n, i], v[n, j]), "out"))


def scores_read_twice() -> Case:
    """The second product's other operand is made of the scores as well."""
    q, k = (te.placeholder(shape, name=n) for n, shape in (("q", (20, 8)), ("k", (8, 20))))
    sums = product((20, 20), 8, lambda i, j, d: (q[i, d], k[d, j]), "sums")
    weights = softmax(sums, lambda e: e)
    return Case([q, k], product((20, 20), 20, lambda i, j, n: (weights[i, n], sums[n, j]), "out"))


@pytest.mark.parametrize("case", [linear, along_columns, scores_read_twice], ids=lambda c: c.__name__)
def test_what_is_something_else_stays_so(case: Callable[[], Case]) -> None:
    made = case()
    assert as_attention([made.output]) is None
    schedule = scheduled(made)
    assert verify_kernel(schedule.kernel).violation is None


def test_scores_are_stored_as_they_are_read_and_narrow() -> None:
    """Scale and mask are applied once, where the scores are written."""
    attention = recognised(heads(dtype="float16", bias=True, masked=causal))
    names = [t.name for t in attention.stages]
    assert names == ["sums", "largest", "powers", "total", "weights", "out.left"]
    assert [t.dtype.value for t in (attention.scores, attention.weights)] == ["float16", "float16"]
    assert {t.name for t in attention.stages[1].inputs()} == {"sums"} == {t.name for t in attention.scores.inputs()} - {
        "added", "sums.product"} | {"sums"}  # fmt: skip
