"""Bytes for tensor cores whose steps do not lie side by side in shared memory."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import BuildError
from polycomp.expr import cast
from polycomp.schedules.schedule import LoopRef


def threads_of(s: pc.Schedule, i: LoopRef, j: LoopRef) -> tuple[LoopRef, ...]:
    """Loops of 16 and 8 iterations for a warp: those over its threads, and over what a thread has."""
    (halves, row), (column, neighbours) = s.split(i, 8), s.split(j, 2)
    s.reorder(row, column, halves, neighbours)
    s.bind(row, "thread")
    s.bind(column, "thread")
    return row, column, halves, neighbours


def test_build_turned_bytes() -> None:
    x, w = pc.placeholder((32, 64), "int8", "x"), pc.placeholder((64, 32), "int8", "w")
    k = pc.reduce_axis(64, "k")
    y = pc.compute((32, 32), lambda i, j: pc.sum(cast("int32", x[i, k]) * cast("int32", w[k, j]), axis=k), "y")
    s = pc.Schedule(y)
    sums = s.cache_write(y)
    (io, jo), tile = s.tile((s[y].loops[0], 16), (s[y].loops[1], 8))
    for loop in (io, jo):
        s.bind(loop, "block")
    threads_of(s, *tile)
    i, j, step = s.compute_at(sums, jo, "register")
    step, k = s.split(step, 32)
    row, column, halves, neighbours = threads_of(s, i, j)
    s.reorder(step, row, column, k, halves, neighbours)
    s.tensorize(halves, neighbours, k)
    for operand in (x, w):
        s.bind(s.compute_at(s.cache_read(operand, sums), step, "shared")[-1], "thread")
    message = (
        "build: kernel 'kernel' loads matrices of int8 for tensor cores from 'w.packed', where the steps of the sum do "
        "not lie side by side: only elements of 2 bytes can be turned; copy this operand with its last two dimensions "
        "exchanged"
    )
    with fails(BuildError, message):
        pc.build(s, target="cuda")
