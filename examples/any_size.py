"""A matrix product compiled once for every number of rows: the size is a parameter, proven for all its values.

python examples/any_size.py [--inner 512] [--columns 512] [--rounds 9]
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: both sides use one thread

import argparse

import numpy as np
from timing import seconds

import polycomp as pc
from polycomp.poly.tree import Scope
from polycomp.target import host_target

LANES = host_target().lanes(4)
ROWS = 8 if host_target().vector_registers == 32 else 4


def matmul(inner: int, columns: int) -> pc.Schedule:
    """Tiles of 8 rows by two vectors; rows beyond the last are computed from the last one, and not stored."""
    n = pc.size("n")
    a, b = pc.placeholder((n, inner), "float32", "A"), pc.placeholder((inner, columns), "float32", "B")
    k = pc.reduce_axis(inner, "k")
    c = pc.compute((n, columns), lambda i, j: pc.sum(a[i, k] * b[k, j], axis=k), "C")
    s = pc.Schedule(c)
    acc = s.cache_write(c)
    panel = s.cache_read(b, acc, tiles={1: 2 * LANES})
    i, j = s[c].loops
    io, ii = s.split(i, ROWS)
    jo, ji = s.split(j, 2 * LANES)
    s.reorder(jo, io, ii, ji)
    ti, tj, k = s.compute_at(acc, io, Scope.REGISTER, overcompute=True)
    s.unroll(ii)
    s.unroll(ti)
    s.vectorize(ji)
    s.vectorize(tj)
    s.reorder(k, ti, tj)
    s.vectorize(s.compute_at(panel, jo)[-1])
    return s


def main() -> None:
    """Run the one kernel for several numbers of rows, beside numpy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inner", type=int, default=512)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    product = pc.build(matmul(args.inner, args.columns), threads=1)
    rng = np.random.default_rng(0)
    b = rng.standard_normal((args.inner, args.columns), dtype=np.float32)
    for n in (1, 7, 64, 200, 513):
        a = rng.standard_normal((n, args.inner), dtype=np.float32)
        np.testing.assert_allclose(product(a, b), a @ b, rtol=1e-3, atol=1e-3)
        taken = seconds({"polycomp": lambda a=a: product(a, b), "numpy": lambda a=a: a @ b}, args.rounds)
        flops = 2 * n * args.inner * args.columns
        speeds = ", ".join(f"{name} {flops / t / 1e9:6.1f} GFLOP/s" for name, t in taken.items())
        print(f"{n:4d} rows: {speeds}")


if __name__ == "__main__":
    main()
