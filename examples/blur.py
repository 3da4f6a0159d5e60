"""A blur in two passes: where the first pass is computed decides how often it is computed and how far it travels.

python examples/blur.py [--size 2048] [--rounds 9]
"""

from __future__ import annotations

import argparse

import numpy as np
from timing import seconds

import polycomp as pc

LANES = 16


def define(size: int) -> tuple[pc.Schedule, dict[str, object]]:
    """Three columns are averaged, then three rows; the result is two smaller each way."""
    x = pc.placeholder((size, size), "float32", "x")
    across = pc.compute((size, size - 2), lambda i, j: (x[i, j] + x[i, j + 1] + x[i, j + 2]) / 3.0, "across")
    shape = (size - 2, size - 2)
    y = pc.compute(shape, lambda i, j: (across[i, j] + across[i + 1, j] + across[i + 2, j]) / 3.0, "y")
    return pc.Schedule(y), {"across": across, "y": y}


def inlined(size: int) -> pc.Schedule:
    """The first pass is repeated for every row that reads it: three times the work, no memory."""
    s, stages = define(size)
    s.compute_inline(stages["across"])
    s.vectorize(s.split(s[stages["y"]].loops[-1], LANES)[1])
    return s


def apart(size: int) -> pc.Schedule:
    """The whole first pass, then the whole second one: no work twice, but all of it goes through memory."""
    s, stages = define(size)
    for stage in stages.values():
        s.vectorize(s.split(s[stage].loops[-1], LANES)[1])
    return s


def in_strips(size: int) -> pc.Schedule:
    """Strips of rows: two rows of 34 are computed twice, and a strip stays in the cache between the passes."""
    s, stages = define(size)
    i, j = s[stages["y"]].loops
    strip, _ = s.split(i, 32)
    inner = s.compute_at(stages["across"], strip)
    for loop in (j, inner[-1]):
        s.vectorize(s.split(loop, LANES)[1])
    s.parallel(strip)
    return s


def main() -> None:
    """Check each schedule against numpy, and time them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((args.size, args.size), dtype=np.float32)

    def reference() -> np.ndarray:
        across = (x[:, :-2] + x[:, 1:-1] + x[:, 2:]) / np.float32(3)
        return (across[:-2] + across[1:-1] + across[2:]) / np.float32(3)

    contenders = {"numpy": reference}
    for name, schedule in {"inlined": inlined, "apart": apart, "in strips": in_strips}.items():
        blur = pc.build(schedule(args.size), threads=1)
        np.testing.assert_allclose(blur(x), reference(), rtol=1e-4, atol=1e-5)
        contenders[name] = lambda f=blur: f(x)
    for name, t in seconds(contenders, args.rounds).items():
        print(f"{name:12s} {1e3 * t:8.2f} ms {2 * x.nbytes / t / 1e9:7.1f} GB/s")


if __name__ == "__main__":
    main()
