"""A stencil in time: tiles that keep a piece of space in the cache for all steps are illegal until they are skewed.

python examples/stencil.py [--size 4000000] [--steps 64] [--rounds 5]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from timing import seconds

import polycomp as pc
from polycomp.errors import IllegalScheduleError
from polycomp.target import host_target

LANES = host_target().lanes(4)
TILE = 2048
"""Elements of space in a tile: two steps of them stay in the first-level cache."""


def define(steps: int, size: int) -> pc.Schedule:
    """Each step averages every point with its two neighbours a step before; the last step is the result."""
    x = pc.placeholder((size,), "float32", "x")

    def heat(u: Any, t: Any, i: Any) -> Any:
        average = (u[t - 1, i - 1] + u[t - 1, i] + u[t - 1, i + 1]) * (1 / 3)
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


def two_steps_kept(steps: int, size: int) -> pc.Schedule:
    """A step reads nothing but the one before: two are kept, and each overwrites the one before the last."""
    s = step_by_step(steps, size)
    s.fold_storage("u", 0, 2)
    return s


def refused(steps: int, size: int) -> dict[str, str]:
    """Why not: a tile for all steps needs its neighbours' earlier values; a step would overwrite what it reads."""

    def tile_too_early(s: pc.Schedule) -> None:
        tile, _ = s.split("i", TILE)
        s.reorder(tile, "t")

    def keep_one_step(s: pc.Schedule) -> None:
        s.fold_storage("u", 0, 1)

    reasons = {}
    for name, mistake in {"without the skew": tile_too_early, "one step kept": keep_one_step}.items():
        try:
            mistake(define(steps, size))
        except IllegalScheduleError as error:
            reasons[name] = str(error)
    return reasons


def skewed(steps: int, size: int) -> pc.Schedule:
    """Tiles that move to the left with each step: all that a tile needs has been computed before it.

    One point a step would do; a whole vector keeps what is stored aligned.
    """
    s = define(steps, size)
    tile, inner = s.split(s.skew("t", "i", LANES), TILE)
    s.reorder(tile, "t", inner)
    s.vectorize(s.split(inner, LANES)[1])
    return s


def skewed_two_kept(steps: int, size: int) -> pc.Schedule:
    """Both: a tile's steps stay in the cache, and memory is read and written once for all of them."""
    s = skewed(steps, size)
    s.fold_storage("u", 0, 2)
    return s


SCHEDULES = {
    "step by step": step_by_step,
    "  two steps kept": two_steps_kept,
    "skewed tiles": skewed,
    "  two steps kept ": skewed_two_kept,
}


def reference(x: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """The same with numpy."""
    now = x
    for _ in range(steps - 1):
        before, now = now, now.copy()
        now[1:-1] = (before[:-2] + before[1:-1] + before[2:]) * np.float32(1 / 3)
    return now


def main() -> None:
    """Show what is refused, check the schedules against numpy, and time them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    # No power of two: steps that lie one apart would fall on the same lines of the cache.
    parser.add_argument("--size", type=int, default=4_000_000)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name, reason in refused(args.steps, args.size).items():
        print(f"{name}: {reason}")
    functions = {name: pc.build(make(args.steps, args.size), threads=1) for name, make in SCHEDULES.items()}
    x = np.random.default_rng(0).standard_normal(args.size).astype(np.float32)
    expected = reference(x, args.steps)
    for function in functions.values():
        np.testing.assert_allclose(function(x), expected, rtol=1e-4, atol=1e-5)
    contenders = {"numpy": lambda: reference(x, args.steps)}
    contenders |= {name: lambda function=function: function(x) for name, function in functions.items()}
    taken = seconds(contenders, args.rounds)
    for name, t in taken.items():
        print(f"{name:18s} {1e3 * t:8.2f} ms {args.steps * args.size / t / 1e9:8.2f} points/ns")
    plain, unskewed, _, best = (taken[name] for name in SCHEDULES)
    print(f"skewed, with two steps kept, is {plain / best:.1f} times as fast as step by step")
    print(f"({unskewed / best:.1f} times as fast as step by step with two steps kept)")


if __name__ == "__main__":
    main()
