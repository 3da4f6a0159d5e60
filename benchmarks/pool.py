"""What starting and joining a parallel loop costs, in microseconds: the thread pool against its goal.

A kernel runs parallel loops of one vector per thread one after the other; as many serial loops are subtracted. Workers
wait awake for a while: "at once" loops follow each other directly, "after a rest" each follows a pause that is long
enough for the workers to fall asleep, so that it contains waking them.

    python benchmarks/pool.py [--threads 2,4] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time

import numpy as np
import rich.console
import rich.table

import polycomp as pc

GOAL_MICROSECONDS = 5.0
"""For loops that follow each other at once."""

VECTOR = 16
OPERATIONS = 12
LOOPS = 200
RUNS = 200
RESTS = 100
REST_SECONDS = 0.002


@dataclasses.dataclass(frozen=True)
class Row:
    """Microseconds per loop: median and 90th percentile over runs, at once and after a rest."""

    threads: int
    median: float
    slow: float
    rested: float
    rested_slow: float


def loops(count: int, threads: int, parallel: bool) -> pc.NativeFunction:
    """``count`` loops over the threads, each iteration of which computes one vector.

    An element is computed by more operations than it has bytes: a run that only moves a few bytes wakes no threads.
    """
    x = pc.placeholder((count, threads, VECTOR), "float32", "x")

    def element(i: pc.Expr, t: pc.Expr, j: pc.Expr) -> pc.Expr:
        value: pc.Expr = x[i, t, j]
        for _ in range(OPERATIONS // 2):
            value = value * 0.5 + 1.0
        return value

    y = pc.compute((count, threads, VECTOR), element, "y")
    schedule = pc.Schedule(y)
    _, thread, lane = schedule[y].loops
    schedule.vectorize(lane)
    if parallel:
        schedule.parallel(thread)
    return pc.build(schedule, threads=threads)


def times(function: pc.NativeFunction, count: int, threads: int, runs: int, rest: float) -> list[float]:
    """Microseconds per loop of each run, sorted."""
    module = function.module
    feeds = {"x": np.ones((count, threads, VECTOR), np.float32)}
    module.run(feeds)
    found = []
    for _ in range(runs):
        time.sleep(rest)
        found.append(module.run_profiled(feeds)[1][0].nanoseconds / count * 1e-3)
    return sorted(found)


def measure(threads: int) -> Row:
    """All figures for one number of threads."""
    serial = statistics.median(times(loops(LOOPS, threads, False), LOOPS, threads, RUNS, 0.0))
    hot = times(loops(LOOPS, threads, True), LOOPS, threads, RUNS, 0.0)
    rested = times(loops(1, threads, True), 1, threads, RESTS, REST_SECONDS)
    figures = [(statistics.median(t), t[len(t) * 9 // 10]) for t in (hot, rested)]
    return Row(threads, *(max(0.0, figure - serial) for pair in figures for figure in pair))


def show(rows: list[Row]) -> None:
    """Print a table."""
    table = rich.table.Table(title=f"Starting and joining a parallel loop, µs (goal: {GOAL_MICROSECONDS:g} at once)")
    for head in ("threads", "at once", "90 % below", "after a rest", "90 % below"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(str(row.threads), *(f"{v:.2f}" for v in dataclasses.astuple(row)[1:]))
    rich.console.Console(width=None if sys.stdout.isatty() else 100).print(table)
    print(f"on {os.cpu_count()} CPUs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="2", metavar="N,N", help="thread counts to measure with (2)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rows = [measure(int(count)) for count in arguments.threads.split(",")]
    if arguments.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        show(rows)
    return 1 if any(row.median > GOAL_MICROSECONDS for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
