"""Schedules of elementwise and data-movement stages for GPUs: a thread makes one or a few vectors of neighbours.

Transposes go through shared memory in tiles, so that both what is read and what is written lies side by side for the
threads of a warp (Ruetsch and Micikevicius, "Optimizing Matrix Transpose in CUDA", 2009).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.expr import Expr, Interval, Load, Var, const, free_vars, linear_in, loads, simplify, substitute, wrap
from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import access_number, constant, stride_of
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.gpu.binding import bind_blocks, block_size, block_sizes, flattened
from polycomp.schedules.library.gpu.groups import count
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Axis, Tensor

_BUSY = 2048  # threads that a multiprocessor holds at a time
_TILE = 32  # rows and columns of a transpose's tile
_ROWS = 8  # of threads, each of which has some of a tile's columns
_NARROW = 16  # columns or rows that are not worth tiles


def schedule_elements(schedule: Schedule, tensor: Tensor, target: Target) -> None:
    """Schedule ``tensor``, an elementwise stage in loops of its own."""
    transposed = transposed_reads(tensor)
    if transposed and schedule.decide(f"{tensor.name}.tiles", True, [True, False]):
        _Transpose(schedule, tensor, transposed).apply()
    else:
        _Elements(schedule, tensor, target).apply()


class _Elements(Deciding):
    """The steps, with what they share."""

    def __init__(self, schedule: Schedule, tensor: Tensor, target: Target) -> None:
        super().__init__(schedule, tensor)
        self.tensor, self.target = tensor, target

    def apply(self) -> None:
        schedule = self.schedule
        *outer, last = schedule[self.tensor].loops
        widest = widest_vector(self.tensor, self.target)
        width = self._decide("vector", widest, [w for w in (1, 2, 4, 8, 16) if w <= widest])
        vector: list[LoopRef] = []
        if width > 1:
            last, lane = schedule.split(last, width)
            schedule.vectorize(lane)
            vector.append(lane)
        *outer, flat = flattened(schedule, [*outer, last])
        total = count(self.tensor.shape)
        items = None if total is None else total // width
        steps = self._decide("steps", self._steps(items, width), [1, 2, 4])
        threads = self._decide("threads", block_size(items, self.target), block_sizes())
        blocks, thread = schedule.split(flat, threads)
        if steps > 1:
            blocks, step = schedule.split(blocks, steps)
            schedule.reorder(thread, step, *vector)
            schedule.unroll(step)
        bind_blocks(schedule, [*outer, blocks])
        schedule.bind(thread, "thread")

    def _steps(self, items: int | None, width: int) -> int:
        """Vectors per thread: where they are short and there is work for all threads, some at once, so that enough is
        on its way from memory."""
        if items is None:
            return 1
        steps = max(1, min(4, self.target.vector_bytes // (width * self.tensor.dtype.bytes)))
        while steps > 1 and items < steps * self.target.cores * _BUSY:
            steps //= 2
        return steps


def widest_vector(tensor: Tensor, target: Target) -> int:
    """Elements of the longest vectors along the last axis that are one access wherever the definition reads."""
    assert tensor.body is not None
    last = tensor.axes[-1]
    extent = constant(last.extent)
    found = [x for x in loads(tensor.body) if any(last in free_vars(i) for i in x.indices)]
    if not extent or any(stride_of(x, last) not in (0, 1) for x in found):
        return 1
    neighbours = [x for x in found if stride_of(x, last) == 1]
    width = target.vector_bytes // max([tensor.dtype.bytes, *(x.dtype.bytes for x in neighbours)])
    while width > 1 and (extent % width or any(not _is_aligned(x, tensor, width) for x in neighbours)):
        width //= 2
    return width


def _is_aligned(load: Load, tensor: Tensor, width: int) -> bool:
    """Whether what ``load`` reads at multiples of ``width`` along the last axis lies at multiples of it in memory."""
    last, block = tensor.axes[-1], Var("block")
    variables = frozenset[Var]([block]).union(*map(free_vars, load.indices))
    ranges: dict[Var, Interval] = dict.fromkeys(variables, (0, None))
    position: Expr = const(0)
    for index, dim in zip(load.indices, load.source.shape, strict=True):
        position = position * wrap(dim) + substitute(index, {last: block * width})
    return simplify(position % width, ranges) == const(0)


@dataclasses.dataclass(frozen=True)
class TransposedRead:
    """A load whose neighbours in memory are at neighbours of an axis that is not the last; by dimension of its tensor:
    where that axis is, and where the last one."""

    load: Load
    axis: Axis
    contiguous: int
    other: int


def transposed_reads(tensor: Tensor) -> list[TransposedRead]:
    """The reads that are worth tiles, all along the same axis; one of each tensor that is read."""
    if tensor.body is None or tensor.is_recurrence or not _is_wide(tensor.axes[-1]):
        return []
    found: dict[Tensor, TransposedRead] = {}
    for load in loads(tensor.body):
        read = _as_transposed(load, tensor)
        if read is not None and load.source not in found:
            found[load.source] = read
    first = next(iter(found.values()), None)
    return [read for read in found.values() if first is not None and read.axis == first.axis]


def _as_transposed(load: Load, tensor: Tensor) -> TransposedRead | None:
    last = tensor.axes[-1]
    if stride_of(load, last) in (0, 1) or any(loads(i) for i in load.indices):
        return None
    other = _dimension_of(last, load)
    for axis in tensor.axes[:-1]:
        contiguous = _dimension_of(axis, load)
        if contiguous is None or other is None or contiguous == other:
            continue
        if stride_of(load, axis) == 1 and _is_wide(axis):
            return TransposedRead(load, axis, contiguous, other)
    return None


def _dimension_of(axis: Axis, load: Load) -> int | None:
    """The only dimension of what is read that goes along ``axis``, step by step."""
    found = [d for d, i in enumerate(load.indices) if axis in free_vars(i)]
    steps = [linear_in(load.indices[d], axis) for d in found]
    return found[0] if len(found) == 1 and steps[0] is not None and steps[0][0] == 1 else None


def _is_wide(axis: Axis) -> bool:
    extent = constant(axis.extent)
    return extent is None or extent >= _NARROW


class _Transpose(Deciding):
    """Tiles of what is read go to shared memory as they lie, and are read from there in the order of the result."""

    def __init__(self, schedule: Schedule, tensor: Tensor, reads: Sequence[TransposedRead]) -> None:
        super().__init__(schedule, tensor)
        self.tensor, self.reads = tensor, reads
        extent = constant(reads[0].axis.extent)
        possible = [w for w in (1, 2, 4) if extent is not None and extent % w == 0] or [1]
        self.width = self._decide("vector", possible[-1], possible)

    def apply(self) -> None:
        schedule, tensor = self.schedule, self.tensor
        packed = [
            (r, schedule.cache_read(r.load.source, tensor, None, access_number(tensor, r.load))) for r in self.reads
        ]
        loops = list(schedule[tensor].loops)
        row, column = loops[tensor.axes.index(self.reads[0].axis)], loops[-1]
        others = [x for x in loops if x not in (row, column)]
        row_tiles, row = schedule.split(row, _TILE)
        column_tiles, column = schedule.split(column, _TILE)
        row, own = schedule.split(row, _TILE // _ROWS)
        own, lane = schedule.split(own, self.width)
        schedule.reorder(*others, row_tiles, column_tiles, row, column, own, lane)
        bind_blocks(schedule, [*others, row_tiles, column_tiles])
        self._finish((row, column), own, lane)
        for read, copy in packed:
            self._place(read, copy, column_tiles)

    def _finish(self, threads: Sequence[LoopRef], own: LoopRef, lane: LoopRef) -> None:
        for loop in threads:
            self.schedule.bind(loop, "thread")
        self.schedule.unroll(own)
        self.schedule.vectorize(lane)

    def _place(self, read: TransposedRead, copy: Tensor, tile: LoopRef) -> None:
        """Copy a tile, neighbours in memory by neighbouring threads."""
        schedule = self.schedule
        loops = schedule.compute_at(copy, tile, Scope.SHARED)
        row, column = loops[read.other], loops[read.contiguous]
        others = [x for x in loops if x not in (row, column)]
        column, lane = schedule.split(column, self.width)
        own, row = schedule.split(row, _ROWS * self.width)
        schedule.reorder(*others, row, column, own, lane)
        self._finish((row, column), own, lane)
        schedule.pad_storage(copy, read.contiguous, self.width)
