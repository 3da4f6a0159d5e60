"""Softmax over rows as one kernel: three passes over a row that never leaves the cache.

python examples/softmax.py [--rows 4096] [--columns 1000] [--rounds 15]
"""

from __future__ import annotations

import argparse

import numpy as np
from timing import seconds

import polycomp as pc
from polycomp.poly.tree import Scope

LANES = 16


def define(rows: int, columns: int) -> tuple[pc.Schedule, dict[str, object]]:
    """The textbook definition: a maximum, exponentials, their sum, a quotient."""
    x = pc.placeholder((rows, columns), "float32", "x")
    k, j2 = pc.reduce_axis(columns, "k"), pc.reduce_axis(columns, "j2")
    top = pc.compute((rows,), lambda i: pc.max(x[i, k], axis=k), "top")
    e = pc.compute((rows, columns), lambda i, j: pc.unary("exp", x[i, j] - top[i]), "e")
    total = pc.compute((rows,), lambda i: pc.sum(e[i, j2], axis=j2), "total")
    y = pc.compute((rows, columns), lambda i, j: e[i, j] / total[i], "y")
    return pc.Schedule(y), {"top": top, "e": e, "total": total, "y": y}


def fused(rows: int, columns: int) -> pc.Schedule:
    """All stages inside of the loop over rows; reductions keep a vector of partial results."""
    s, stages = define(rows, columns)
    top, e, total, y = stages["top"], stages["e"], stages["total"], stages["y"]
    partial = {t: s.rfactor(t, 0, 4 * LANES) for t in (top, total)}
    row, column = s[y].loops
    for stage in (total, e, top):
        inner = s.compute_at(stage, row, Scope.REGISTER if stage in partial else Scope.WORKSPACE)
        if stage is e:
            s.vectorize(s.split(inner[-1], LANES)[1])
            continue
        s.vectorize(inner[-1])
        lane, steps = s.compute_at(partial[stage], row, Scope.REGISTER)[-2:]
        s.vectorize(lane)
        s.reorder(steps, lane)
    s.vectorize(s.split(column, LANES)[1])
    s.parallel(row)
    return s


def main() -> None:
    """Check the plain and the fused kernel against numpy, and time them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((args.rows, args.columns), dtype=np.float32)

    def reference() -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    plain = pc.build(define(args.rows, args.columns)[0], threads=1)
    kernel = pc.build(fused(args.rows, args.columns), threads=1)
    for f in (plain, kernel):
        np.testing.assert_allclose(f(x), reference(), rtol=1e-4, atol=1e-6)
    taken = seconds({"unscheduled": lambda: plain(x), "fused": lambda: kernel(x), "numpy": reference}, args.rounds)
    for name, t in taken.items():
        print(f"{name:12s} {1e3 * t:8.2f} ms {2 * x.nbytes / t / 1e9:7.1f} GB/s")
    print(f"fused is {taken['numpy'] / taken['fused']:.1f} times as fast as numpy, on one thread")


if __name__ == "__main__":
    main()
