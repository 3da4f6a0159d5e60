"""Attention without its matrix of scores in memory: softmax over blocks of keys, corrected as larger scores are found.

python examples/attention.py [--heads 8] [--length 1024] [--width 64] [--rounds 5]

The maximum, the sum and the result so far are recurrences over the blocks: steps of time, of which one or two are kept
(Dao and others, FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, 2022; the recurrences are
from Milakov and Gimelshein, Online normalizer calculation for softmax, 2018). With so many steps a schedule is proven
once, by ``build``: ``check=False`` leaves out the proof of each step.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: all sides use one thread
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import math
from typing import Any

import numpy as np
from timing import seconds

import polycomp as pc
from polycomp.target import host_target

Array = np.ndarray[Any, Any]
Stages = dict[str, Any]

LANES = host_target().lanes(4)
ROWS = (host_target().vector_registers - 3) // 2
"""Rows of a register tile that is two vectors wide."""

QUERIES, KEYS = 8 * ROWS, 8 * LANES
"""At most so many are taken at a time: their scores stay in the first-level cache."""


def inputs(heads: int, length: int, width: int) -> list[Any]:
    """Queries, keys and values: one vector of ``width`` numbers per head and position."""
    return [pc.placeholder((heads, length, width), "float32", name) for name in ("q", "k", "v")]


def textbook(heads: int, length: int, width: int) -> tuple[pc.Schedule, Stages]:
    """softmax(q @ k.T / sqrt(width)) @ v, each step of it for all scores."""
    q, k, v = inputs(heads, length, width)
    d, j, n, e = (pc.reduce_axis(extent, name) for extent, name in zip((width, *[length] * 3), "djne", strict=True))
    square, rows, scale = (heads, length, length), (heads, length), 1 / math.sqrt(width)
    scores = pc.compute(square, lambda h, i, c: pc.sum(q[h, i, d] * k[h, c, d], axis=d), "scores")
    top = pc.compute(rows, lambda h, i: pc.max(scores[h, i, j], axis=j), "top")
    weights = pc.compute(square, lambda h, i, c: pc.exp((scores[h, i, c] - top[h, i]) * scale), "weights")
    total = pc.compute(rows, lambda h, i: pc.sum(weights[h, i, n], axis=n), "total")
    mixed = pc.compute((heads, length, width), lambda h, i, x: pc.sum(weights[h, i, e] * v[h, e, x], axis=e), "mixed")
    y = pc.compute((heads, length, width), lambda h, i, x: mixed[h, i, x] / total[h, i], "y")
    stages = {"k": k, "scores": scores, "top": top, "weights": weights, "total": total, "mixed": mixed, "y": y}
    return pc.Schedule(y, check=False), stages


def online(heads: int, length: int, width: int) -> tuple[pc.Schedule, Stages]:
    """The same, block ``t`` of keys after block: what was summed is corrected when a larger score appears."""
    q, k, v = inputs(heads, length, width)
    keys = divisor(length, KEYS)
    blocks, scale = length // keys, 1 / math.sqrt(width)
    d, j, n, e = (pc.reduce_axis(extent, name) for extent, name in zip((width, *[keys] * 3), "djne", strict=True))
    steps, rows = (blocks, heads, length), (heads, length, blocks)
    scores = pc.compute((*rows, keys), lambda h, i, t, c: pc.sum(q[h, i, d] * k[h, t * keys + c, d], axis=d), "scores")
    highest = pc.compute(rows, lambda h, i, t: pc.max(scores[h, i, t, j], axis=j), "highest")
    top = pc.recurrence(
        steps, lambda top, t, h, i: pc.select(t < 1, highest[h, i, t], pc.maximum(top[t - 1, h, i], highest[h, i, t])),
        name="top",
    )  # fmt: skip
    kept = pc.compute(
        steps, lambda t, h, i: pc.select(t < 1, 0.0, pc.exp((top[t - 1, h, i] - top[t, h, i]) * scale)), "kept"
    )
    weights = pc.compute(
        (*rows, keys), lambda h, i, t, c: pc.exp((scores[h, i, t, c] - top[t, h, i]) * scale), "weights"
    )
    added = pc.compute(rows, lambda h, i, t: pc.sum(weights[h, i, t, n], axis=n), "added")
    total = pc.recurrence(
        steps,
        lambda total, t, h, i: pc.select(t < 1, 0.0, total[t - 1, h, i] * kept[t, h, i]) + added[h, i, t],
        name="total",
    )
    part = pc.compute(
        (*rows, width), lambda h, i, t, x: pc.sum(weights[h, i, t, e] * v[h, t * keys + e, x], axis=e), "part"
    )
    mixed = pc.recurrence(
        (*steps, width),
        lambda mixed, t, h, i, x: pc.select(t < 1, 0.0, mixed[t - 1, h, i, x] * kept[t, h, i]) + part[h, i, t, x],
        name="mixed",
    )
    last = blocks - 1
    y = pc.compute((heads, length, width), lambda h, i, x: mixed[last, h, i, x] / total[last, h, i], "y")
    found = (k, scores, highest, top, kept, weights, added, total, part, mixed, y)
    return pc.Schedule(y, check=False), {stage.name: stage for stage in found}


def divisor(extent: int, most: int) -> int:
    """The largest divisor of ``extent`` that is at most ``most``."""
    return max(d for d in range(1, most + 1) if extent % d == 0)


def whole(heads: int, length: int, width: int) -> pc.Schedule:
    """Every step for all scores, each of them as vectors, the products with tiles in registers."""
    s, stage = textbook(heads, length, width)
    partial = {name: s.rfactor(stage[name], 0, LANES) for name in ("top", "total")}
    packed = s.cache_read(stage["k"], stage["scores"], tiles={1: 2 * LANES})
    s.vectorize(s[packed].loops[-1])
    sums = s.cache_write(stage["scores"])
    multiplied(s, sums, *s[stage["scores"]].loops[-2:])
    for name, lanes in partial.items():
        reduced(s, stage[name], lanes)
    s.vectorize(s.split(s[stage["weights"]].loops[-1], LANES)[1])
    multiplied(s, stage["mixed"], *s[stage["y"]].loops[-2:])
    return s


def flash(heads: int, length: int, width: int) -> pc.Schedule:
    """A block of queries goes through all blocks of keys; only it has running values, and they stay in the cache."""
    s, stage = online(heads, length, width)
    partial = {name: s.rfactor(stage[name], 0, LANES) for name in ("highest", "added")}
    packed = s.cache_read(stage["k"], stage["scores"], tiles={1: 2 * LANES})
    head, query, x = s[stage["y"]].loops
    block, _ = s.split(query, divisor(length, QUERIES))
    s.vectorize(s.split(x, LANES)[1])
    t = one_loop_over_blocks(s, stage, partial, block)
    for name, steps in (("mixed", 1), ("total", 1), ("top", 2)):
        s.fold_storage(stage[name], 0, steps)
    sums = s.cache_write(stage["scores"])
    _, i, _, c = s.compute_at(stage["scores"], t)
    multiplied(s, sums, i, c)
    s.vectorize(s.compute_at(packed, head)[-1])
    for name in ("weights", "top", "total", "kept"):
        s.vectorize(s.split(s[stage[name]].loops[-1], LANES)[1])
    multiplied(s, stage["part"], *s[stage["mixed"]].loops[-2:])
    s.parallel(head)
    return s


def one_loop_over_blocks(s: pc.Schedule, stage: Stages, partial: Stages, block: Any) -> Any:
    """All but the scores of a block of queries in one loop over blocks of keys, which is returned.

    From the last stage to the first: what reads a stage is there before it.
    """
    for name in ("mixed", "total"):
        s.compute_at(stage[name], block)
    t = s[stage["mixed"]].loops[2]
    s.compute_with(stage["total"], t)
    for name in ("part", "added"):
        s.compute_at(stage[name], t)
    reduced(s, stage["added"], partial["added"])
    for name in ("kept", "weights"):
        s.compute_at(stage[name], t)
    s.compute_at(stage["top"], block)
    s.compute_with(stage["top"], t)
    s.compute_at(stage["highest"], t)
    reduced(s, stage["highest"], partial["highest"])
    return t


def multiplied(s: pc.Schedule, sums: Any, row: Any, column: Any) -> None:
    """Compute ``sums``, a matrix product, in tiles in registers, where the loops over rows and columns read them."""
    rows, tile_row = s.split(row, divisor(s.extent(row), ROWS))
    columns, tile_column = s.split(column, 2 * LANES)
    s.reorder(columns, rows, tile_row, tile_column)
    _, i, *others, c, k = s.compute_at(sums, rows, scope="register")
    s.reorder(k, i, *others, c)
    for r, line in ((i, c), (tile_row, tile_column)):
        vectors, lanes = s.split(line, LANES)
        s.unroll(r)
        s.unroll(vectors)
        s.vectorize(lanes)


def reduced(s: pc.Schedule, tensor: Any, partial: Any) -> None:
    """A reduction of rows: a vector of partial results for a row, and then that."""
    *_, row, lane = (loop for loop in s[tensor].loops if s.extent(loop) != 1)
    s.vectorize(lane)
    *_, lane, steps = s.compute_at(partial, row, scope="register")
    s.reorder(steps, lane)
    s.vectorize(lane)


def reference(q: Array, k: Array, v: Array) -> Array:
    """The same with numpy."""
    scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[-1]))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)) @ v


def main() -> None:
    """Check both against numpy, and time them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024, help="a multiple of four vectors")
    parser.add_argument("--width", type=int, default=64, help="a multiple of two vectors")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    sizes = (args.heads, args.length, args.width)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(sizes).astype(np.float32) for _ in range(3))
    functions = {"all scores in memory": whole, "blocks of scores": flash}
    built = {name: pc.build(make(*sizes), threads=1) for name, make in functions.items()}
    for function in built.values():
        np.testing.assert_allclose(function(q, k, v), reference(q, k, v), rtol=1e-3, atol=1e-5)
    contenders = {"numpy": lambda: reference(q, k, v)}
    taken = seconds(contenders | {n: lambda f=f: f(q, k, v) for n, f in built.items()}, args.rounds)
    for name, t in taken.items():
        scratch = f", {built[name].scratch_bytes / 1e6:8.2f} MB of scratch" if name in built else ""
        print(f"{name:22s} {1e3 * t:8.2f} ms {4 * math.prod(sizes) * args.length / t / 1e9:8.1f} GFLOP/s{scratch}")
    plain, blocks = (taken[name] for name in built)
    print(f"blocks are {plain / blocks:.2f} times as fast")


if __name__ == "__main__":
    main()
