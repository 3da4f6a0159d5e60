"""``@polycomp.jit`` against numpy, numba (with and without threads) and torch eager: ratio to the best of them.

    python benchmarks/jit.py [--rounds 5] [--threads N] [--only softmax]

All run in this process with as many threads as there are cores, in interleaved rounds; a row is the median time per
call. With ``--threads 1`` numba's parallel loops are left out; numpy's BLAS has to be told outside of the program
(``OPENBLAS_NUM_THREADS=1``). A peer that is not installed is named and left out. Results are first compared with
numpy's.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from measure import geometric_mean, interleaved

import polycomp as pc

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One function at one size."""

    name: str
    size: str
    arrays: tuple[Array, ...]


# What is measured, as numpy writes it; polycomp traces the same text where it can.


def chain(x: Array, y: Array) -> Any:
    return np.tanh(x * 0.5 + y) * np.exp(-x * x) + y


def softmax(x: Array) -> Any:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def layer_norm(x: Array, scale: Array, bias: Array) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * scale + bias


def row_sum(x: Array) -> Any:
    return x.sum(axis=1)


def stencil3(x: Array) -> Any:
    return 0.25 * x[:-2] + 0.5 * x[1:-1] + 0.25 * x[2:]


def stencil5(x: Array) -> Any:
    return 0.5 * x[1:-1, 1:-1] + 0.125 * (x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:])


def batched_matmul(a: Array, b: Array) -> Any:
    return a @ b


def attention(q: Array, k: Array, v: Array) -> Any:
    scores = q @ np.swapaxes(k, -1, -2) * (1 / 8)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


NUMPY: Mapping[str, Function] = {
    f.__name__: f for f in (chain, softmax, layer_norm, row_sum, stencil3, stencil5, batched_matmul, attention)
}


def rows() -> Iterator[Row]:
    """Three sizes of each: within a core's second cache, within the last one, and beyond (or long enough)."""
    random = np.random.default_rng(0)

    def array(*shape: int) -> Array:
        return random.standard_normal(shape, np.float32)

    for n in (1 << 15, 1 << 18, 1 << 22):
        yield Row("chain", f"{n}", (array(n), array(n)))
    for m, n in ((256, 256), (1024, 512), (4096, 1024)):
        yield Row("softmax", f"{m}x{n}", (array(m, n),))
        yield Row("layer_norm", f"{m}x{n}", (array(m, n), array(n), array(n)))
        yield Row("row_sum", f"{m}x{n}", (array(m, n),))
    for n in (1 << 15, 1 << 18, 1 << 22):
        yield Row("stencil3", f"{n}", (array(n),))
    for n in (256, 512, 2048):
        yield Row("stencil5", f"{n}x{n}", (array(n, n),))
    for batch, n in ((256, 16), (512, 32), (256, 64)):
        yield Row("batched_matmul", f"{batch}x{n}x{n}", (array(batch, n, n), array(batch, n, n)))
    for heads, n in ((4, 64), (8, 128), (8, 512)):
        yield Row("attention", f"{heads}x{n}x64", (array(heads, n, 64), array(heads, n, 64), array(heads, n, 64)))


# The peers


def numba_functions(parallel: bool) -> Mapping[str, Function]:
    """Loops as numba's users write them; ``fastmath`` for sums, which numba does not vectorise without."""
    import numba  # noqa: PLC0415

    compiled = numba.njit(parallel=parallel, fastmath=True)
    span = numba.prange if parallel else range

    @compiled
    def chain(x: Array, y: Array) -> Array:
        out = np.empty_like(x)
        for i in span(x.size):
            out[i] = np.tanh(x[i] * np.float32(0.5) + y[i]) * np.exp(-x[i] * x[i]) + y[i]
        return out

    @compiled
    def softmax(x: Array) -> Array:
        out = np.empty_like(x)
        for i in span(x.shape[0]):
            largest = x[i, 0]
            for j in range(x.shape[1]):
                largest = max(largest, x[i, j])
            total = np.float32(0)
            for j in range(x.shape[1]):
                out[i, j] = np.exp(x[i, j] - largest)
                total += out[i, j]
            for j in range(x.shape[1]):
                out[i, j] /= total
        return out

    @compiled
    def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
        out = np.empty_like(x)
        for i in span(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            mean = total / np.float32(x.shape[1])
            squares = np.float32(0)
            for j in range(x.shape[1]):
                squares += (x[i, j] - mean) * (x[i, j] - mean)
            inverse = np.float32(1) / np.sqrt(squares / np.float32(x.shape[1]) + np.float32(1e-5))
            for j in range(x.shape[1]):
                out[i, j] = (x[i, j] - mean) * inverse * scale[j] + bias[j]
        return out

    @compiled
    def row_sum(x: Array) -> Array:
        out = np.empty(x.shape[0], x.dtype)
        for i in span(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            out[i] = total
        return out

    @compiled
    def stencil3(x: Array) -> Array:
        out = np.empty(x.size - 2, x.dtype)
        for i in span(x.size - 2):
            out[i] = np.float32(0.25) * (x[i] + x[i + 2]) + np.float32(0.5) * x[i + 1]
        return out

    @compiled
    def stencil5(x: Array) -> Array:
        out = np.empty((x.shape[0] - 2, x.shape[1] - 2), x.dtype)
        for i in span(x.shape[0] - 2):
            for j in range(x.shape[1] - 2):
                ring = x[i, j + 1] + x[i + 2, j + 1] + x[i + 1, j] + x[i + 1, j + 2]
                out[i, j] = np.float32(0.5) * x[i + 1, j + 1] + np.float32(0.125) * ring
        return out

    @compiled
    def batched_matmul(a: Array, b: Array) -> Array:
        out = np.zeros((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
        for i in span(a.shape[0]):
            for m in range(a.shape[1]):
                for k in range(a.shape[2]):
                    for n in range(b.shape[2]):
                        out[i, m, n] += a[i, m, k] * b[i, k, n]
        return out

    # numba has no attention of its own to offer: its batched products are loops.
    functions = (chain, softmax, layer_norm, row_sum, stencil3, stencil5, batched_matmul)
    return {f.__name__: f for f in functions}


def torch_functions(threads: int) -> Mapping[str, Function]:
    """Eager torch, with its fused operators where it has them."""
    import torch  # noqa: PLC0415

    if threads:
        torch.set_num_threads(threads)
    functional = torch.nn.functional
    return {
        "chain": lambda x, y: torch.tanh(x * 0.5 + y) * torch.exp(-x * x) + y,
        "softmax": lambda x: torch.softmax(x, -1),
        "layer_norm": lambda x, scale, bias: functional.layer_norm(x, x.shape[-1:], scale, bias),
        "row_sum": lambda x: x.sum(1),
        "stencil3": lambda x: 0.25 * x[:-2] + 0.5 * x[1:-1] + 0.25 * x[2:],
        "stencil5": lambda x: 0.5 * x[1:-1, 1:-1] + 0.125 * (x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:]),
        "batched_matmul": torch.bmm,
        "attention": lambda q, k, v: functional.scaled_dot_product_attention(q[None], k[None], v[None])[0],
    }


def peers(threads: int) -> Mapping[str, Mapping[str, Function]]:
    """By name; one that is not installed is named on the terminal."""
    found: dict[str, Mapping[str, Function]] = {"numpy": NUMPY}
    if importlib.util.find_spec("numba"):
        found["numba"] = numba_functions(False)
        if threads != 1:
            found["numba parallel"] = numba_functions(True)
    else:
        print("numba is not installed: left out")
    if importlib.util.find_spec("torch"):
        found["torch"] = torch_functions(threads)
    else:
        print("torch is not installed: left out")
    return found


def subjects(
    row: Row, compiled: Mapping[str, Function], others: Mapping[str, Mapping[str, Function]]
) -> dict[str, Any]:
    """What is timed for a row, by name; torch has its own tensors on the same memory."""
    runs: dict[str, Function] = {"polycomp": lambda: compiled[row.name](*row.arrays)}
    for peer, functions in others.items():
        if row.name in functions:
            runs[peer] = _bound(functions[row.name], _for_peer(peer, row.arrays))
    return runs


def _for_peer(peer: str, arrays: Sequence[Array]) -> list[Any]:
    if peer != "torch":
        return list(arrays)
    import torch  # noqa: PLC0415

    return [torch.from_numpy(a) for a in arrays]


def _bound(function: Function, arrays: Sequence[Any]) -> Function:
    return lambda: function(*arrays)


def check(row: Row, runs: Mapping[str, Function]) -> None:
    """Raise AssertionError when a result differs from numpy's."""
    wanted = NUMPY[row.name](*row.arrays)
    for name, run in runs.items():
        np.testing.assert_allclose(np.asarray(run()), wanted, rtol=2e-3, atol=2e-4, err_msg=f"{name} {row.name}")


def main() -> None:
    """Print the table, then the geometric mean and the worst row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    options = parser.parse_args()
    others = peers(options.threads)
    compiled = {name: pc.jit(threads=options.threads)(function) for name, function in NUMPY.items()}
    names = list(others)
    print(f"{'function':<16}{'size':<14}{'polycomp':>11}" + "".join(f"{n:>16}" for n in names) + f"{'ratio':>8}")
    ratios = {}
    for row in rows():
        if options.only in row.name:
            ratios[row] = _measure(row, subjects(row, compiled, others), names, options.rounds)
    worst = min(ratios, key=lambda row: ratios[row])
    print(
        f"\nspeed relative to the best peer: geometric mean {geometric_mean(ratios.values()):.2f}, "
        f"lowest {ratios[worst]:.2f} ({worst.name} {worst.size})"
    )


def _measure(row: Row, runs: Mapping[str, Function], names: Sequence[str], rounds: int) -> float:
    check(row, runs)
    seconds = interleaved(runs, rounds)
    best = min(seconds[n] for n in names if n in seconds)
    cells = "".join(f"{seconds[n] * 1e6:>13.1f} µs" if n in seconds else f"{'-':>16}" for n in names)
    ratio = best / seconds["polycomp"]
    print(f"{row.name:<16}{row.size:<14}{seconds['polycomp'] * 1e6:>8.1f} µs{cells}{ratio:>8.2f}", flush=True)
    return ratio


if __name__ == "__main__":
    main()
