"""Matrix products: polycomp against numpy's BLAS and onnxruntime, in GFLOP/s (of integers, in 10^9 operations/s).

polycomp and onnxruntime get a model of one MatMul, with B as a constant (which may be packed beforehand) or as an
input; numpy multiplies into a given array. Each thread count is measured in a process of its own, because a BLAS reads
its number of threads when it is loaded. All figures contain the call from Python, about 10 microseconds. The share is
polycomp's of the peak of float32's fused multiply-adds: a register tile over and over on operands in the first-level
cache, measured in the same rounds, between the competitors.

Of narrow types, float16 and bfloat16 are MatMul, and int8 is MatMulInteger of uint8 by int8; onnxruntime alone is the
peer there, and nothing for bfloat16, which it has no products of.

    python benchmarks/gemm.py [--dtype float32,float16,bfloat16,int8] [--threads 1,2] [--b constant,given]
                              [--only 512x512x512] [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime_peer
import rich.console
import rich.table
from measure import Array, geometric_mean, interleaved, relative_error
from onnx import TensorProto, helper, numpy_helper
from polycomp_peer import module_peer

import polycomp as pc
from polycomp.dtypes import as_dtype
from polycomp.roofline.roofs import fma_kernel
from polycomp.target import host_target

SIZES = (
    (128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048),
    (1, 1024, 1024), (16, 768, 3072), (128, 768, 3072),
)  # fmt: skip
"""M, K, N."""

ROUNDING = {"float32": 1.0, "float16": 8.0, "bfloat16": 64.0, "int8": 0.0}
"""The tolerated error by type, in units of the option's: that of results in 11 or 8 bits, and none of integers."""

PEAK = "peak"
"""The competitor that only multiplies and adds."""

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclasses.dataclass(frozen=True)
class Row:
    """GFLOP/s of each competitor on A [m, k] times B [k, n]; ``failure`` says why polycomp has none."""

    dtype: str
    m: int
    k: int
    n: int
    b: str
    threads: int
    gflops: dict[str, float]
    error: float | None
    failure: str = ""

    @property
    def ratio(self) -> float | None:
        """polycomp's speed by that of the faster peer, if there is one."""
        ours = self.gflops.get("polycomp")
        peers = [speed for name, speed in self.gflops.items() if name not in ("polycomp", PEAK)]
        return None if ours is None else ours / max(peers, default=math.nan)

    @property
    def share(self) -> float | None:
        """polycomp's speed by the measured peak."""
        ours = self.gflops.get("polycomp")
        return None if ours is None else ours / self.gflops[PEAK]


def operands(size: tuple[int, int, int], dtype: str) -> tuple[Array, Array]:
    """A and B; of ``int8`` A is unsigned, as quantisers write activations."""
    m, k, n = size
    generator = np.random.default_rng(0)
    if dtype == "int8":
        return generator.integers(0, 256, (m, k), np.uint8), generator.integers(-128, 128, (k, n), np.int8)
    a, b = (generator.standard_normal(s, dtype=np.float32) for s in ((m, k), (k, n)))
    kind = as_dtype(dtype).numpy
    return a.astype(kind), b.astype(kind)


def matmul_model(a: Array, b: Array, constant: bool) -> onnx.ModelProto:
    """A model of ``y = a @ b`` for arrays of these shapes and types, with ``b`` a constant or an input."""
    integers = a.dtype.kind in "ui"
    types = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in (a, b)]
    inputs = [helper.make_tensor_value_info("a", types[0], a.shape)]
    if not constant:
        inputs.append(helper.make_tensor_value_info("b", types[1], b.shape))
    result = TensorProto.INT32 if integers else types[0]
    output = helper.make_tensor_value_info("y", result, (a.shape[0], b.shape[1]))
    weights = [numpy_helper.from_array(b, "b")] if constant else []
    node = helper.make_node("MatMulInteger" if integers else "MatMul", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "gemm", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(size: tuple[int, int, int], dtype: str, kind: str, threads: int, rounds: int) -> Row:
    """All competitors on one product."""
    m, k, n = size
    a, b = operands(size, dtype)
    model = matmul_model(a, b, kind == "constant")
    feeds = {"a": a} if kind == "constant" else {"a": a, "b": b}
    peak, peak_operations = fma_kernel(host_target(), threads)
    runs: dict[str, Callable[[], object]] = {PEAK: peak}
    if dtype != "bfloat16":
        runs["onnxruntime"] = onnxruntime_peer.open_peer(model.SerializeToString(), feeds, threads).run
    if dtype == "float32":
        out = np.empty((m, n), np.float32)
        runs["numpy"] = lambda: np.matmul(a, b, out=out)
    error, failure = None, ""
    try:
        ours = module_peer(pc.compile(model, target="cpu", threads=threads), feeds)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        error = relative_error([ours.outputs()["y"]], [exact])
        runs["polycomp"] = ours.run
    except Exception as problem:  # noqa: BLE001 - whatever went wrong is told in the row
        failure = f"{type(problem).__name__}: {problem}"
    seconds = interleaved(runs, rounds)
    operations = dict.fromkeys(runs, 2 * m * k * n) | {PEAK: peak_operations}
    gflops = {name: 1e-9 * operations[name] / s for name, s in seconds.items()}
    return Row(dtype, m, k, n, kind, threads, gflops, error, failure)


def measure_in_processes(arguments: argparse.Namespace) -> list[Row]:
    """One process per thread count, with the BLAS limited to that many threads."""
    rows = []
    for threads in arguments.threads.split(","):
        limits = dict.fromkeys(BLAS_VARIABLES, threads)
        options = ["--dtype", arguments.dtype, "--b", arguments.b, "--rounds", str(arguments.rounds)]
        options += [o for name in arguments.only for o in ("--only", name)]
        command = [sys.executable, __file__, "--worker", threads, *options]
        done = subprocess.run(command, env=os.environ | limits, stdout=subprocess.PIPE, text=True, check=True)
        rows += [Row(**row) for row in json.loads(done.stdout)]
    return rows


def work(arguments: argparse.Namespace) -> None:
    """The worker: measure everything with one thread count and print it as JSON."""
    rows = []
    for dtype, kind, size in itertools.product(arguments.dtype.split(","), arguments.b.split(","), SIZES):
        name = "x".join(map(str, size))
        if not arguments.only or name in arguments.only:
            print(f"{name} of {dtype}, {kind} B, {arguments.worker} threads ...", file=sys.stderr)
            rows.append(measure(size, dtype, kind, arguments.worker, arguments.rounds))
    print(json.dumps([dataclasses.asdict(row) for row in rows]))


def show(rows: Sequence[Row]) -> None:
    """Print a table with a geometric mean per type, thread count and kind of B."""
    table = rich.table.Table(title="MatMul in GFLOP/s (ratio above 1: polycomp is faster than both)")
    heads = ("M x K x N", "type", "B", "threads", "polycomp", "onnxruntime", "numpy", "ratio", "peak", "share", "error")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        ours, *peers = (row.gflops.get(name, math.nan) for name in ("polycomp", "onnxruntime", "numpy"))
        speeds = [_text(None if math.isnan(ours) else ours, ".1f"), *(_text(p, ".1f") for p in peers)]
        name = f"{row.m} x {row.k} x {row.n}"
        shares = [_text(row.ratio, ".3f"), _text(row.gflops[PEAK], ".1f"), _text(row.share, ".3f")]
        table.add_row(name, row.dtype, row.b, str(row.threads), *speeds, *shares, _text(row.error, ".1e"))
    table.add_section()
    for dtype, kind, threads in dict.fromkeys((row.dtype, row.b, row.threads) for row in rows):
        same = [r.ratio for r in rows if (r.dtype, r.b, r.threads) == (dtype, kind, threads)]
        mean = _text(geometric_mean(r for r in same if r is not None), ".3f")
        table.add_row("geometric mean", dtype, kind, str(threads), "", "", "", mean, "", "", "")
    console = rich.console.Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for failure in dict.fromkeys(row.failure for row in rows if row.failure):
        console.print(failure, style="red", markup=False)


def _text(value: float | None, form: str) -> str:
    if value is None:
        return "failed"
    return "" if math.isnan(value) else format(value, form)


def main() -> int:
    arguments = _arguments()
    if arguments.worker:
        work(arguments)
        return 0
    rows = measure_in_processes(arguments)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(r) | {"ratio": r.ratio, "share": r.share} for r in rows], indent=1))
    else:
        show(rows)
    return 1 if any(row.error is None or row.error > arguments.tolerance * ROUNDING[row.dtype] for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2", metavar="N,N", help="thread counts to measure with (1,2)")
    parser.add_argument("--dtype", default="float32", help="float32, float16, bfloat16, int8 or several (float32)")
    parser.add_argument("--b", default="constant,given", help="constant, given or both, with a comma between")
    parser.add_argument("--only", action="append", default=[], metavar="MxKxN", help="measure this size alone")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds per size (7)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative error that passes (1e-4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
