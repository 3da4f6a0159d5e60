"""Schedules of reductions along memory and of what surrounds them, for GPUs: softmax, normalisation, means of rows.

A block has a row. Its threads have vectors of it, side by side in memory, which stay in their registers from one walk
over the row to the next; each sums its own, and all of them the sums.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import constant, is_expensive, is_reduction, reads_tensor
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.gpu.binding import MOST_THREADS, WARP, bind_blocks, largest_power, unroll, upper_bound
from polycomp.schedules.library.gpu.groups import Group, count, reads_along, walked
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Tensor

_SHORTEST = 24  # elements of a row that is worth a warp; shorter ones are walked over by a thread each
_THREAD_VALUES = 64  # that a thread keeps of all rows in its registers
_ROW_VALUES = 32  # and of one
_REGISTERS, _OTHER_REGISTERS = 1 << 16, 24  # of all threads, and those of a thread that have other uses
_BUSY = 1024  # threads that a multiprocessor has at least, where there are many rows
_VECTORS = 4  # of a row, per thread
_WIDEST = 8  # elements of a vector
_FILLED = 0.8  # of the threads' vectors at least, if possible
_USUAL = 256  # threads for a row of unknown length
_SHARED_BYTES = 48 << 10  # that a block has without asking for more
_LONG = 1 << 17  # elements of a row that are too many for one block where there are few rows
_PIECE = 1 << 13  # elements of such a row that are worth a block


def as_rows(group: Group) -> bool:
    """Whether the stages are made row by row: each reduction has one value per row, along memory."""
    if not group.reductions or any(group.along[t] for t in group.reductions):
        return False
    lengths = [constant(t.reduce_axes[-1].extent) if t.reduce_axes else 1 for t in group.reductions]
    main, along = group.main, group.along[group.main]
    has_rows = len(along) < main.rank or constant(main.shape[along[0]]) is not None
    long = any(n is None or n >= _SHORTEST for n in lengths)
    return has_rows and long and all(map(reads_along, group.reductions))


def schedule_rows(schedule: Schedule, group: Group, target: Target) -> None:
    """Schedule the stages of a group that :func:`as_rows` holds for."""
    _Rows(schedule, group, target).apply()


@dataclasses.dataclass(frozen=True)
class Lanes:
    """How a row is shared out: each of its ``threads`` has ``vector`` elements, again and again."""

    threads: int
    vector: int

    @property
    def elements(self) -> int:
        return self.threads * self.vector

    def values(self, length: int) -> int:
        """Elements of a row that a thread has."""
        return math.ceil(length / self.elements) * self.vector


@dataclasses.dataclass(frozen=True)
class Partials:
    """What a sum is made of: ``sums`` of each vector's lanes and, where these are several, those of each thread's."""

    lanes: Tensor
    threads: Tensor | None


def split_sum(schedule: Schedule, tensor: Tensor, axis: int, lanes: Lanes) -> Partials:
    """Sum ``tensor``, along its reduction axis number ``axis``, in partial sums of ``lanes``."""
    partial = schedule.rfactor(tensor, axis, lanes.elements)
    folded = schedule.rfactor(tensor, 0, lanes.threads, blocked=True) if lanes.vector > 1 else None
    return Partials(partial, folded)


def place_sum(schedule: Schedule, tensor: Tensor, partials: Partials, row: LoopRef, lanes: Lanes) -> None:
    """Compute the sum of a row, and its partial sums, in an iteration of ``row``, in the registers of the threads."""
    *_, lane = schedule.compute_at(tensor, row, Scope.REGISTER)
    schedule.bind(lane, "thread")
    if partials.threads is not None:
        thread, *_, own = schedule.compute_at(partials.threads, row, Scope.REGISTER)
        schedule.bind(thread, "thread")
        schedule.unroll(own)
    loops = schedule.compute_at(partials.lanes, row, Scope.REGISTER)
    lane, reduced = loops[tensor.rank], loops[tensor.rank + 1 :]
    if lanes.vector > 1:
        lane, vector = schedule.split(lane, lanes.vector)
        schedule.reorder(lane, *reduced, vector)
        schedule.vectorize(vector)
    schedule.bind(lane, "thread")
    unroll(schedule, reduced)


class _Rows(Deciding):
    """The steps, with what they share. ``length`` is that of the longest row, None when it is not known."""

    def __init__(self, schedule: Schedule, group: Group, target: Target) -> None:
        super().__init__(schedule, group.main)
        self.group, self.target = group, target
        self.lengths = self._lengths()
        self.length = None if None in self.lengths else max(n for n in self.lengths if n is not None)
        self.lanes = self._choose_lanes()
        self.held = self._choose_held()

    def apply(self) -> None:
        """Bind the rows of the stored stage, and compute in each what it needs, the last first."""
        schedule, group = self.schedule, self.group
        stages = list(group.own)
        if is_reduction(group.main):
            stages.append(schedule.cache_write(group.main))
        sums = {t: split_sum(schedule, t, len(t.reduce_axes) - 1, self.lanes) for t in stages if is_reduction(t)}
        for stage in stages:
            if stage not in sums and stage not in self.held:
                schedule.compute_inline(stage)
        row = self._place_main()
        for stage in reversed(stages):
            if stage in sums:
                place_sum(schedule, stage, sums[stage], row, self.lanes)
            elif stage in self.held:
                self._walk(schedule.compute_at(stage, row, self.held[stage]), group.along[stage])

    def _place_main(self) -> LoopRef:
        """Bind the rows to blocks; returns the loop whose iteration is one row."""
        schedule, along = self.schedule, list(self.group.along[self.group.main])
        loops = list(schedule[self.group.main].loops)
        rows = [x for d, x in enumerate(loops) if d not in along]
        if not rows:
            extent = constant(schedule.extent(loops[along[0]]))
            assert extent is not None
            single, loops[along[0]] = schedule.split(loops[along[0]], max(extent, 1))
            rows = [single]
        if along:
            self._walk([*rows, *(loops[d] for d in along)], range(len(rows), len(rows) + len(along)))
        bind_blocks(schedule, rows)
        return rows[-1]

    def _walk(self, loops: Sequence[LoopRef], along: Sequence[int]) -> None:
        """Share out the loops ``along`` a row to its threads, by vectors of the last of them."""
        schedule = self.schedule
        rows = [x for d, x in enumerate(loops) if d not in along]
        *others, last = (loops[d] for d in along)
        vectors: list[LoopRef] = []
        if self.lanes.vector > 1:
            last, vector = schedule.split(last, self.lanes.vector)
            schedule.vectorize(vector)
            vectors.append(vector)
        steps, thread = schedule.split(last, self.lanes.threads)
        schedule.reorder(*rows, thread, *others, steps, *vectors)
        schedule.bind(thread, "thread")
        unroll(schedule, [*others, steps])

    # ------------------------------------------------------------------ choices

    def _lengths(self) -> list[int | None]:
        """Of all walks over a row."""
        axes = [walked(t, self.group.along[t]) for t in self.group.stages]
        return [constant(a.extent) for a in axes if a is not None]

    def _choose_lanes(self) -> Lanes:
        if self.length is None:
            bounds = [upper_bound(self.schedule, a.extent) for t in self.group.reductions for a in t.reduce_axes[-1:]]
            limit = min([_USUAL, *(b for b in bounds if b is not None)])
            usual = max(WARP, largest_power(max(limit, 1)))
            return Lanes(self._decide("threads", usual, [32, 64, 128, 256, 512]), 1)
        vector = self._decide("vector", self._vector(), self._vectors())
        possible = [n for n in (32, 64, 128, 256, 512, MOST_THREADS) if n >= self._fewest()]
        return Lanes(self._decide("threads", self._threads(vector), possible), vector)

    def _fewest(self) -> int:
        """Threads that can keep a row in their registers, if any can."""
        return min(math.ceil((self.length or 1) / _ROW_VALUES / WARP) * WARP, MOST_THREADS)

    def _vectors(self) -> list[int]:
        """What all rows are made of without a rest, and the longest row in as many as a warp has threads."""
        assert self.length is not None
        memory = [*(t for t in self.schedule.kernel.inputs if self._is_walked(t)), self.group.main]
        widest = min(_WIDEST, self.target.vector_bytes // min(t.dtype.bytes for t in memory))
        found = [v for v in (1, 2, 4, 8) if v <= widest and self.length >= v * WARP]
        return [v for v in found if all(n is not None and n % v == 0 for n in self.lengths)] or [1]

    def _is_walked(self, source: Tensor) -> bool:
        return any(
            axis is not None and any(axis in x.indices for x in reads_tensor(t, source))
            for t in self.group.stages for axis in [walked(t, self.group.along[t])]
        )  # fmt: skip

    def _vector(self) -> int:
        """The longest that leaves few threads without one."""
        return max(
            self._vectors(), key=lambda v: (self._busy(v) > _FILLED, self._busy(v) > _FILLED and v, self._busy(v))
        )

    def _busy(self, vector: int) -> float:
        """Which part of the threads' vectors are there."""
        assert self.length is not None
        lanes = Lanes(self._threads(vector), vector)
        return self.length / (lanes.values(max(self.length, 1)) * lanes.threads)

    def _threads(self, vector: int) -> int:
        """So many that each has some vectors, or one where there are few rows; the same number for all, if possible."""
        vectors = max(1, (self.length or 1) // vector)
        rows = self.group.points() or self.target.cores * _BUSY
        each = min(_VECTORS, max(1, rows * vectors // (self.target.cores * _BUSY)))
        fewest = self._fewest()
        wanted = max(fewest, vectors // each)
        even = [n for n in range(fewest, MOST_THREADS + 1, WARP) if vectors % n == 0]
        if even and min(even, key=lambda n: abs(n - wanted)) >= wanted // 2:
            return min(even, key=lambda n: (abs(n - wanted), n))
        return min(MOST_THREADS, math.ceil(wanted / WARP) * WARP)

    # ------------------------------------------------------------------ what is kept of a row

    def _choose_held(self) -> dict[Tensor, Scope]:
        """Where the rows of elementwise stages are kept; those that are not are made again by each walk."""
        held: dict[Tensor, Scope] = {}
        values, shared = 0, 0
        most = min(_THREAD_VALUES, _REGISTERS // self.lanes.threads - _OTHER_REGISTERS)
        for stage in reversed(self.group.own):
            length, along = self.group.length(stage), self.group.along[stage]
            if is_reduction(stage) or not along or length is None:
                continue
            last = constant(stage.shape[along[-1]]) or 1
            own = length // last * self.lanes.values(last)
            size = length * stage.dtype.bytes
            if self._is_plain(stage, held) and own <= _ROW_VALUES and values + own <= most:
                held[stage] = Scope.REGISTER
                values += own
            elif is_expensive(stage) and shared + size <= min(_SHARED_BYTES, self.target.shared_bytes):
                held[stage] = Scope.SHARED
                shared += size
        return held

    def _is_plain(self, stage: Tensor, held: dict[Tensor, Scope]) -> bool:
        """Whether each thread reads only what it has made of the row: all walks are alike."""
        along = self.group.along[stage]
        axis = walked(stage, along)
        assert axis is not None
        for reader in self.group.readers(stage):
            walk = walked(reader, self.group.along[reader])
            alike = walk is not None and constant(walk.extent) == constant(axis.extent)
            if not alike or any(x.indices[along[-1]] != walk for x in reads_tensor(reader, stage)):
                return False
            inlined = reader is not self.group.main and not is_reduction(reader) and reader not in held
            if inlined and not self._is_plain(reader, held):
                return False
        return True


def are_long(group: Group, target: Target) -> bool:
    """Whether rows are so few and long that a block for each would leave most multiprocessors idle."""
    points, lengths = group.points(), [count(a.extent for a in t.reduce_axes) for t in group.reductions]
    return points is not None and 4 * points <= target.cores and any(n is not None and n >= _LONG for n in lengths)


def schedule_long_rows(schedule: Schedule, group: Group, target: Target) -> None:
    """Schedule a group of one reduction, each result of which many blocks share in: each sums a piece, and then a block
    the sums of the pieces."""
    ((total,), points) = group.reductions, group.points() or 1
    for stage in group.own:
        if not is_reduction(stage):
            schedule.compute_inline(stage)
    name, length = total.name, constant(total.reduce_axes[-1].extent) or 1
    if total is group.main:
        total = schedule.cache_write(total)
    most = max(2, min(2 * target.cores // points, length // _PIECE))
    even = [n for n in range(most, most // 2, -1) if length % (n * _WIDEST) == 0]
    pieces = schedule.decide(f"{name}.pieces", even[0] if even else most, [16, 32, 64, 128, 256])
    partial = schedule.rfactor(total, len(total.reduce_axes) - 1, pieces, blocked=True)
    schedule_rows(schedule, Group(partial, (), {partial: ()}), target)
    lanes = Lanes(WARP * 2, 1)
    sums = split_sum(schedule, total, 0, lanes)
    rows = schedule[group.main].loops
    bind_blocks(schedule, rows)
    place_sum(schedule, total, sums, rows[-1], lanes)
