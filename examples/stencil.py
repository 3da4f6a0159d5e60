"""A stencil in time: tiles that keep a piece of space in the cache for all steps are illegal until they are skewed.

python examples/stencil.py [--size 1048576] [--steps 32] [--rounds 9]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from timing import seconds

import polycomp as pc
from polycomp.errors import IllegalScheduleError

LANES, TILE = 16, 2048


def define(steps: int, size: int) -> pc.Schedule:
    """Each step averages every point with its two neighbours a step before; the last step is the result."""
    x = pc.placeholder((size,), "float32", "x")

    def heat(u: Any, t: Any, i: Any) -> Any:
        average = (u[t - 1, i - 1] + u[t - 1, i] + u[t - 1, i + 1]) / 3.0
        return pc.select(t < 1, x[i], pc.select((i >= 1) & (i < size - 1), average, u[t - 1, i]))

    u = pc.recurrence((steps, size), heat, name="u")
    s = pc.Schedule(pc.compute((size,), lambda n: u[steps - 1, n] * 1.0, "last"))
    s.vectorize(s.split("n", LANES)[1])
    return s


def step_by_step(steps: int, size: int) -> pc.Schedule:
    """All of space for one step, then for the next: each step reads from memory what the last one wrote to it."""
    s = define(steps, size)
    s.vectorize(s.split("i", LANES)[1])
    return s


def tiled_too_early(steps: int, size: int) -> str:
    """A tile of space for all steps at once needs its neighbours' values of earlier steps: the error says which."""
    s = define(steps, size)
    tile, _ = s.split("i", TILE)
    try:
        s.reorder(tile, "t")
    except IllegalScheduleError as error:
        return str(error)
    raise AssertionError("the tile was accepted")


def skewed(steps: int, size: int) -> pc.Schedule:
    """Tiles that move one point to the left with each step: all that a tile needs has been computed before it."""
    s = define(steps, size)
    tile, inner = s.split(s.skew("t", "i"), TILE)
    s.reorder(tile, "t", inner)
    s.vectorize(s.split(inner, LANES)[1])
    return s


def reference(x: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """The same with numpy."""
    now = x
    for _ in range(steps - 1):
        before, now = now, now.copy()
        now[1:-1] = (before[:-2] + before[1:-1] + before[2:]) / np.float32(3)
    return now


def main() -> None:
    """Show the error, check both schedules against numpy, and time them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    print(f"without the skew: {tiled_too_early(args.steps, args.size)}")
    schedules = {"step by step": step_by_step, "skewed tiles": skewed}
    functions = {name: pc.build(make(args.steps, args.size), threads=1) for name, make in schedules.items()}
    x = np.random.default_rng(0).standard_normal(args.size).astype(np.float32)
    expected = reference(x, args.steps)
    for function in functions.values():
        np.testing.assert_allclose(function(x), expected, rtol=1e-4, atol=1e-5)
    contenders = {"numpy": lambda: reference(x, args.steps)}
    contenders |= {name: lambda function=function: function(x) for name, function in functions.items()}
    for name, taken in seconds(contenders, args.rounds).items():
        print(f"{name:28s} {1e3 * taken:8.2f} ms {args.steps * args.size / taken / 1e9:8.2f} points/ns")


if __name__ == "__main__":
    main()
