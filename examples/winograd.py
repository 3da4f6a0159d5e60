"""A 3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3), beside the direct one.

python examples/winograd.py [--size 56] [--channels 64] [--filters 64] [--rounds 15]

Tiles of 6 by 6 inputs are transformed, so that the convolution of a tile is a product of numbers; summed over the
channels, that is a matrix product for each of the 36 points. A second transformation makes 4 by 4 outputs of them
(Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
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

INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
         [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]  # fmt: skip
WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
          [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
"""The matrices of the three transformations, for the points 0, 1, -1, 2, -2 and infinity."""


def row_times(matrix: Sequence[Sequence[float]], row: Any, element: Callable[[int], Any]) -> Any:
    """Row number ``row`` (an index) of a constant matrix times a vector, of which zeros leave out elements."""
    *others, last = [sum_of(coefficients, element) for coefficients in matrix]
    for number, value in reversed(list(enumerate(others))):
        last = pc.select(row < number + 1, value, last)
    return last


def sum_of(coefficients: Sequence[float], element: Callable[[int], Any]) -> Any:
    """A linear combination, without multiplications by 0 and 1."""
    total = None
    for i, c in enumerate(coefficients):
        if c:
            term = element(i) if abs(c) == 1 else element(i) * abs(float(c))
            if total is None:
                total = term if c > 0 else -term
            else:
                total = total + term if c > 0 else total - term
    return total


def direct(size: int, channels: int, filters: int) -> pc.Schedule:
    """The definition of a convolution, tiled like a matrix product: a row of outputs by two vectors of filters."""
    x = pc.placeholder((size + 2, size + 2, channels), "float32", "x")
    w = pc.placeholder((3, 3, channels, filters), "float32", "w")
    r, q, c = pc.reduce_axis(3, "r"), pc.reduce_axis(3, "q"), pc.reduce_axis(channels, "c")
    y = pc.compute(
        (size, size, filters),
        lambda i, j, k: pc.sum(x[i + r, j + q, c] * w[r, q, c, k], axis=(r, q, c)), "y",
    )  # fmt: skip
    s = pc.Schedule(y)
    sums = s.cache_write(y)
    i, j, k = s[y].loops
    (jo, ko), (ji, ki) = s.tile((j, divisor(size, ROWS)), (k, min(2 * LANES, filters)))
    s.reorder(i, ko, jo)
    tile = s.compute_at(sums, jo, scope="register")
    in_registers(s, (ji, ki), tile[1:])
    s.parallel(i)
    return s


def divisor(extent: int, most: int) -> int:
    """The largest divisor of ``extent`` that is at most ``most``."""
    return max(d for d in range(1, most + 1) if extent % d == 0)


def in_registers(s: pc.Schedule, copy: Sequence[Any], tile: Sequence[Any]) -> None:
    """A tile of rows and columns in registers, the loops of the reduction around it, and the loops that copy it out."""
    row, column, *reduced = tile
    s.reorder(*reduced, row, column)
    for rows, columns in ((row, column), copy):
        vectors, lanes = s.split(columns, LANES)
        s.unroll(rows)
        s.unroll(vectors)
        s.vectorize(lanes)


def weights(channels: int, filters: int) -> pc.Schedule:
    """The weights at the 36 points, made once for all inputs."""
    w = pc.placeholder((3, 3, channels, filters), "float32", "w")
    half = pc.compute(
        (6, 3, channels, filters), lambda a, q, c, k: row_times(WEIGHT, a, lambda r: w[r, q, c, k]), "half_weights"
    )
    u = pc.compute((6, 6, channels, filters), lambda a, b, c, k: row_times(WEIGHT, b, lambda q: half[a, q, c, k]), "u")
    s = pc.Schedule(u)
    for stage in (half, u):
        a, b, c, k = s[stage].loops
        s.reorder(c, k, a, b)
        s.vectorize(s.split(k, LANES)[1])
    return s


def define(size: int, channels: int, filters: int) -> tuple[pc.Schedule, Stages]:
    """The three stages on tiles ``(m, n)``: inputs at the points, products summed over the channels, outputs."""
    tiles = size // 4
    x = pc.placeholder((size + 2, size + 2, channels), "float32", "x")
    u = pc.placeholder((6, 6, channels, filters), "float32", "u")
    c = pc.reduce_axis(channels, "c")
    half = pc.compute(
        (6, 6, tiles, tiles, channels),
        lambda a, j, m, n, ch: row_times(INPUT, a, lambda i: x[m * 4 + i, n * 4 + j, ch]), "half_inputs",
    )  # fmt: skip
    v = pc.compute(
        (6, 6, tiles, tiles, channels),
        lambda a, b, m, n, ch: row_times(INPUT, b, lambda j: half[a, j, m, n, ch]), "v",
    )  # fmt: skip
    p = pc.compute(
        (6, 6, tiles, tiles, filters),
        lambda a, b, m, n, k: pc.sum(v[a, b, m, n, c] * u[a, b, c, k], axis=c), "p",
    )  # fmt: skip
    narrow = pc.compute(
        (4, 6, tiles, tiles, filters),
        lambda i, b, m, n, k: row_times(OUTPUT, i, lambda a: p[a, b, m, n, k]), "half_outputs",
    )  # fmt: skip
    y = pc.compute(
        (size, size, filters),
        lambda h, w, k: row_times(OUTPUT, w % 4, lambda b: narrow[h % 4, b, h // 4, w // 4, k]), "y",
    )  # fmt: skip
    return pc.Schedule(y), {"half_inputs": half, "v": v, "p": p, "half_outputs": narrow, "y": y}


def winograd(size: int, channels: int, filters: int) -> pc.Schedule:
    """A few rows of tiles at a time, through all stages: what they hand on stays in the second-level cache."""
    s, stage = define(size, channels, filters)
    h, w, k = s[stage["y"]].loops
    m, hi = s.split(h, 4)
    n, wi = s.split(w, 4)
    block, mi = s.split(m, rows_of_tiles(size, channels, filters), tail="shrink")
    ko, ki = s.split(k, LANES)
    s.reorder(block, mi, n, ko, hi, wi, ki)
    small(s, s.compute_at(stage["half_outputs"], ko, scope="register"))
    small(s, (hi, wi, ki))
    products(s, stage["p"], block, filters)
    transformed(s, stage["v"], stage["half_inputs"], block)
    s.parallel(block)
    return s


def rows_of_tiles(size: int, channels: int, filters: int) -> int:
    """So many that the products and their inputs take about half a megabyte, a quarter of a usual cache."""
    tiles = size // 4
    return divisor(tiles, max(1, min(tiles, 2**19 // (4 * 36 * tiles * (channels + filters)))))


def products(s: pc.Schedule, p: Any, block: Any, filters: int) -> None:
    """A matrix product for each point, whose rows are tiles."""
    sums = s.cache_write(p)
    a, b, m, n, k = s.compute_at(p, block)
    extent = s.extent(n)
    no, ni = s.split(n, divisor(extent, ROWS))
    ko, ki = s.split(k, min(2 * LANES, filters))
    s.reorder(a, b, ko, m, no, ni, ki)
    *_, row, column, c = s.compute_at(sums, no, scope="register")
    in_registers(s, (ni, ki), (row, column, c))


def transformed(s: pc.Schedule, v: Any, half: Any, block: Any) -> None:
    """The inputs of a tile at all points, a vector of channels at a time."""
    a, b, m, n, c = s.compute_at(v, block)
    co, ci = s.split(c, LANES)
    s.reorder(m, n, co, a, b, ci)
    small(s, s.compute_at(half, co, scope="register"))
    small(s, (a, b, ci))


def small(s: pc.Schedule, loops: Sequence[Any]) -> None:
    """Loops of which the last is a vector, and all others become instructions."""
    *others, lanes = loops
    for loop in others:
        s.unroll(loop)
    s.vectorize(lanes)


def reference(x: Array, w: Array) -> Array:
    """The convolution in float64."""
    size = x.shape[0] - 2
    shifted = np.stack([x[r : r + size, q : q + size] for r in range(3) for q in range(3)], axis=2).astype(np.float64)
    return np.einsum("ijrc,rck->ijk", shifted, w.reshape(9, *w.shape[2:]).astype(np.float64), optimize=True)


def main() -> None:
    """Check both against float64, and time them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=56, help="height and width of the result, a multiple of 4")
    parser.add_argument("--channels", type=int, default=64, help="a multiple of a vector's length")
    parser.add_argument("--filters", type=int, default=64, help="a multiple of a vector's length")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    sizes = (args.size, args.channels, args.filters)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.size + 2, args.size + 2, args.channels)).astype(np.float32)
    w = rng.standard_normal((3, 3, args.channels, args.filters)).astype(np.float32)
    plain, fast = pc.build(direct(*sizes), threads=1), pc.build(winograd(*sizes), threads=1)
    u = pc.build(weights(args.channels, args.filters), threads=1)(w)
    expected = reference(x, w)
    contenders = {"direct": lambda: plain(x, w), "Winograd F(4x4, 3x3)": lambda: fast(x, u)}
    taken = seconds(contenders, args.rounds)
    for name, run in contenders.items():
        error = np.abs(run() - expected).max() / np.abs(expected).max()
        assert error < 1e-4
        gflops = 2 * 9 * args.size**2 * args.channels * args.filters / taken[name] / 1e9
        print(
            f"{name:22s} {1e3 * taken[name]:8.2f} ms {gflops:8.1f} GFLOP/s of a direct one, largest error {error:.1e}"
        )
    print(f"Winograd is {taken['direct'] / taken['Winograd F(4x4, 3x3)']:.2f} times as fast")


if __name__ == "__main__":
    main()
