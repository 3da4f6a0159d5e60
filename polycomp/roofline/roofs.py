"""What this machine can do at best, measured with kernels of our own: arithmetic, memory, and starting threads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polycomp import te
from polycomp.native import build
from polycomp.poly.tree import Scope
from polycomp.runtime import StepProfile
from polycomp.runtime.memory import allocate
from polycomp.schedules import Schedule
from polycomp.target import Target

_RUNS = 15
_PEAK_REPEATS = 8192
_MOST_MEMORY = 512 << 20
_LEAST_MEMORY = 64 << 20
_CACHED_BYTES = 4 << 30  # about four times what each thread reads from the second-level cache in one run
_FORKS = 1000
_READ_VECTORS = 8  # partial sums: enough to hide the latency of an addition
_TILE_VECTORS = 2
_ELEMENT = 4  # bytes of a float32


@dataclasses.dataclass(frozen=True)
class Roofs:
    """The best that ``threads`` threads reach: GFLOP/s of float32 fused multiply-adds (which count 2), GB/s read from
    memory and from the second-level caches, nanoseconds to start and join a parallel loop, and to call a kernel.

    ``memory_bytes`` is the size of the array that was read from memory.
    """

    threads: int
    gflops: float
    memory: float
    cache: float
    fork_ns: float
    call_ns: float
    memory_bytes: int


def measure_roofs(target: Target, threads: int) -> Roofs:
    """Measure them, which takes about two seconds. ``target`` must be this machine."""
    size = memory_bytes(target)
    call = _fork_ns(target, 1)
    return Roofs(
        threads=threads,
        gflops=_peak_gflops(target, threads),
        memory=_read_gbps(target, threads, size // threads, 1),
        cache=_read_gbps(target, threads, target.l2_bytes // 4, max(1, _CACHED_BYTES // target.l2_bytes)),
        fork_ns=_fork_ns(target, threads) / _FORKS if threads > 1 else 0.0,
        call_ns=call,
        memory_bytes=size,
    )


def memory_bytes(target: Target) -> int:
    """The size of an array that the caches do not hold, unless they are so large that it would be unreasonable."""
    return min(_MOST_MEMORY, max(_LEAST_MEMORY, 2 * target.l3_bytes))


def fma_kernel(target: Target, threads: int) -> tuple[Callable[[], StepProfile], int]:
    """A register tile of a matrix product, over and over on operands in the first-level cache: what runs it once and
    tells how long that took, and its operations (a fused multiply-add counts 2). One run takes some milliseconds."""
    columns = _TILE_VECTORS * target.lanes(_ELEMENT)
    rows = (target.vector_registers - _TILE_VECTORS - 1) // _TILE_VECTORS
    depth = target.l1_bytes // 2 // (_ELEMENT * (rows + columns))
    a, b = te.placeholder((rows, depth), name="a"), te.placeholder((depth, columns), name="b")
    again, k = te.reduce_axis(_PEAK_REPEATS, "again"), te.reduce_axis(depth, "k")
    c = te.compute((threads, rows, columns), lambda _, i, j: te.sum(a[i, k] * b[k, j], axis=(again, k)), "c")
    schedule = Schedule(c)
    sums = schedule.cache_write(c)
    thread, i, j = schedule[c].loops
    *_, row, column, outer, inner = schedule.compute_at(sums, thread, Scope.REGISTER)
    schedule.reorder(outer, inner, row, column)
    for unrolled, vector in ((row, column), (i, j)):
        schedule.unroll(unrolled)
        schedule.vectorize(vector)
    schedule.parallel(thread)
    return _kernel(schedule, target, threads), 2 * threads * rows * columns * depth * _PEAK_REPEATS


def _peak_gflops(target: Target, threads: int) -> float:
    run, operations = fma_kernel(target, threads)
    return operations / _fastest(run).nanoseconds


def _read_gbps(target: Target, threads: int, bytes_each: int, repeats: int) -> float:
    """Sums over an array of ``bytes_each`` bytes per thread, ``repeats`` times."""
    columns = _READ_VECTORS * target.lanes(_ELEMENT)
    rows = max(1, bytes_each // (_ELEMENT * columns))
    x = te.placeholder((threads, rows, columns), name="x")
    again, k = te.reduce_axis(repeats, "again"), te.reduce_axis(rows, "k")
    y = te.compute((threads, columns), lambda t, j: te.sum(x[t, k, j], axis=(again, k)), "y")
    schedule = Schedule(y)
    sums = schedule.cache_write(y)
    thread, j = schedule[y].loops
    *_, column, outer, inner = schedule.compute_at(sums, thread, Scope.REGISTER)
    schedule.reorder(outer, inner, column)
    schedule.vectorize(column)
    schedule.vectorize(j)
    schedule.parallel(thread)
    profile = _run(schedule, target, threads)
    return threads * rows * columns * _ELEMENT * repeats / profile.nanoseconds


def _fork_ns(target: Target, threads: int) -> float:
    """Parallel loops of almost no work, ``_FORKS`` of them one after the other; with one thread, a single call."""
    forks, lanes = (_FORKS if threads > 1 else 1), target.lanes(_ELEMENT)
    x = te.placeholder((forks, threads, lanes), name="x")
    y = te.compute((forks, threads, lanes), lambda i, t, j: x[i, t, j] * 2.0, "y")
    schedule = Schedule(y)
    _, thread, j = schedule[y].loops
    schedule.vectorize(j)
    if threads > 1:
        schedule.parallel(thread)
    return _run(schedule, target, threads).nanoseconds


def _run(schedule: Schedule, target: Target, threads: int) -> StepProfile:
    """The fastest of some runs."""
    return _fastest(_kernel(schedule, target, threads))


def _kernel(schedule: Schedule, target: Target, threads: int) -> Callable[[], StepProfile]:
    """What runs the schedule once on operands of ones."""
    module = build(schedule, target, threads).module
    feeds = {spec.name: _ones([int(d) for d in spec.shape]) for spec in module.inputs}
    return lambda: module.run_profiled(feeds)[1][0]


def _fastest(run: Callable[[], StepProfile]) -> StepProfile:
    profiles = [run() for _ in range(_RUNS)]
    return dataclasses.replace(profiles[0], nanoseconds=max(1, min(p.nanoseconds for p in profiles)))


def _ones(shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """An array that really lies in memory (one of zeros need not), in huge pages where it is large."""
    array = allocate(_ELEMENT * math.prod(shape)).view(np.float32).reshape(shape)
    array.fill(1.0)
    return array
