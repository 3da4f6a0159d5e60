"""A matrix product from the plain definition to the machine's peak, in about ten schedule lines.

Every step computes the same thing, proven, and prints its speed; the last line compares with numpy and onnxruntime.

    python examples/matmul.py [--size 1024] [--rounds 7]
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: all sides use one thread
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from timing import seconds

import polycomp as pc
from polycomp.poly.tree import Scope
from polycomp.target import host_target

Array = np.ndarray[Any, Any]

TARGET = host_target()
LANES = TARGET.lanes(4)
COLUMNS = 2 * LANES  # two vectors wide, and as many rows as the registers hold beside them
ROWS = (TARGET.vector_registers - 3) // 2


def define(size: int) -> tuple[pc.Schedule, Any]:
    """C = A @ B, and nothing said about how."""
    a, b = pc.placeholder((size, size), "float32", "A"), pc.placeholder((size, size), "float32", "B")
    k = pc.reduce_axis(size, "k")
    c = pc.compute((size, size), lambda i, j: pc.sum(a[i, k] * b[k, j], axis=k), "C")
    return pc.Schedule(c), (b, c)


def naive(size: int) -> pc.Schedule:
    """Three loops: each step of the innermost one jumps a whole row of B."""
    return define(size)[0]


def interchanged(size: int) -> pc.Schedule:
    """The loop over columns innermost, where both B and C are contiguous, as vectors."""
    s, (_, c) = define(size)
    i, j, k = s[c].loops
    jo, ji = s.split(j, LANES)
    s.reorder(i, k, jo, ji)
    s.vectorize(ji)
    return s


def register_tile(size: int) -> tuple[pc.Schedule, Any, Any, Any]:
    """A tile of C stays in registers while k runs: one load of B serves all rows of the tile."""
    s, (b, c) = define(size)
    acc = s.cache_write(c)
    i, j = s[c].loops
    io, ii = s.split(i, ROWS)
    jo, ji = s.split(j, COLUMNS)
    s.reorder(jo, io, ii, ji)
    ti, tj, k = s.compute_at(acc, io, Scope.REGISTER)
    for loop in (ii, ti):
        s.unroll(loop)
    for loop in (ji, tj):
        s.vectorize(loop)
    s.reorder(k, ti, tj)
    return s, (b, acc), (jo, io), k


def packed(size: int) -> tuple[pc.Schedule, Any, Any, Any]:
    """B's columns for one tile are copied together first, so that the inner loop walks straight through memory."""
    s, (b, acc), (jo, io), k = register_tile(size)
    panel = s.cache_read(b, acc, tiles={1: COLUMNS})
    *_, row, lane = s.compute_at(panel, jo)
    s.vectorize(lane)
    s.prefetch(b, row, 16)
    return s, panel, (jo, io), k


def prefetched(size: int) -> pc.Schedule:
    """And what the inner loop will read is asked for a little earlier."""
    s, panel, _, k = packed(size)
    s.prefetch(panel, k, 32)
    return s


STEPS: dict[str, Callable[[int], pc.Schedule]] = {
    "naive": naive,
    "interchange and vectorise": interchanged,
    "tile in registers": lambda size: register_tile(size)[0],
    "pack panels of B": lambda size: packed(size)[0],
    "prefetch": prefetched,
}


def peers(a: Array, b: Array) -> dict[str, Callable[[], object]]:
    """numpy, and onnxruntime where it is installed."""
    found: dict[str, Callable[[], object]] = {"numpy": lambda: a @ b}
    try:
        import onnxruntime  # noqa: PLC0415 - optional
        from onnx import TensorProto, helper  # noqa: PLC0415 - only for the peer
    except ImportError:
        print("onnxruntime is not installed: compared with numpy alone (pip install '.[bench]')")
        return found
    info = helper.make_tensor_value_info
    values = {n: info(n, TensorProto.FLOAT, list(a.shape)) for n in "ABC"}
    node = helper.make_node("MatMul", ["A", "B"], ["C"])
    graph = helper.make_graph([node], "matmul", [values["A"], values["B"]], [values["C"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found["onnxruntime"] = lambda: session.run(None, {"A": a, "B": b})
    return found


def main() -> None:
    """Build and time every step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((args.size, args.size), dtype=np.float32) for _ in range(2))
    contenders: dict[str, Callable[[], object]] = {}
    for name, schedule in STEPS.items():
        matmul = pc.build(schedule(args.size), threads=1)
        np.testing.assert_allclose(matmul(a, b), a @ b, rtol=1e-3, atol=1e-3)
        contenders[name] = lambda f=matmul: f(a, b)
    others = peers(a, b)
    taken = seconds({n: contenders.pop(n) for n in ("naive",)}, 1) | seconds(contenders | others, args.rounds)
    speed = {name: 2 * args.size**3 / t / 1e9 for name, t in taken.items()}
    for name, gflops in speed.items():
        print(f"{name:28s} {gflops:8.1f} GFLOP/s")
    best = max(others, key=lambda n: speed[n])
    print(f"{'the last step is':28s} {speed['prefetch'] / speed[best]:8.2f} times as fast as {best}")


if __name__ == "__main__":
    main()
