"""Schedules of reductions whose neighbouring results are made of neighbours in memory, for GPUs: pooling, depthwise
convolutions, sums over rows, softmax over channels.

A thread has a result, and all that it needs in its registers. Where that would be too few threads, several of a block
share in each sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import loads
from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import constant, depends_on, is_expensive, is_reduction, stride_of
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.gpu.binding import (
    WARP,
    bind_blocks,
    block_size,
    block_sizes,
    largest_power,
    share_out,
    unroll,
)
from polycomp.schedules.library.gpu.groups import Group, count
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Axis, Tensor

_KEPT = 32  # elements of a stage that a thread keeps in registers
_REPEATED = 256  # steps of a reduction of several results
_LONG = 64  # steps of a sum that several threads share in
_SHARES = 512  # threads of such a block
_BUSY = 128  # results per multiprocessor from which on each is one thread's work


def as_columns(group: Group) -> bool:
    """Whether a thread can have a result: what it needs of each reduction are few elements."""
    sizes = [group.length(t) for t in group.reductions]
    apart = len(group.along[group.main]) < group.main.rank
    return bool(sizes) and apart and all(map(_is_short, group.reductions, sizes))


def _is_short(tensor: Tensor, results: int | None) -> bool:
    """Whether ``results`` elements of a reduction are little work for every thread that needs them."""
    steps = count(a.extent for a in tensor.reduce_axes)
    several = results is not None and results <= _KEPT and steps is not None and steps * results <= _REPEATED
    return results == 1 or several


def schedule_columns(schedule: Schedule, group: Group, target: Target) -> None:
    """Schedule the stages of a group that :func:`as_columns` holds for."""
    _Columns(schedule, group, target).apply()


class _Columns(Deciding):
    """The steps, with what they share."""

    def __init__(self, schedule: Schedule, group: Group, target: Target) -> None:
        super().__init__(schedule, group.main)
        self.group, self.target = group, target
        self.kept = [t for t in group.own if is_reduction(t) or self._is_kept(t)]

    def apply(self) -> None:
        """Inline what no thread keeps, and place the rest."""
        schedule, group = self.schedule, self.group
        for stage in group.own:
            if stage not in self.kept:
                schedule.compute_inline(stage)
        shares = self._shares()
        stages = [*self.kept, *([schedule.cache_write(group.main)] if is_reduction(group.main) else [])]
        if shares > 1:
            self._share_sums(next(t for t in stages if is_reduction(t)), shares)
        else:
            self._place(stages)

    def _is_kept(self, stage: Tensor) -> bool:
        """Whether a thread makes the elements of an elementwise stage once and keeps them."""
        size = self.group.length(stage)
        often = is_expensive(stage) or len(self.group.readers(stage)) > 1
        return often and size is not None and size <= _KEPT

    # ------------------------------------------------------------------ one thread for a result

    def _place(self, stages: Sequence[Tensor]) -> None:
        schedule, main = self.schedule, self.group.main
        loops, along = schedule[main].loops, self.group.along[main]
        inner = [loops[d] for d in along]
        points = [x for x in loops if x not in inner]
        neighbours: list[LoopRef] = []
        width = self._decide("neighbours", self._neighbours(), self._possible_neighbours())
        if width > 1:
            points[-1], lane = schedule.split(points[-1], width)
            neighbours.append(lane)
        schedule.reorder(*points, *inner, *neighbours)
        items = self.group.points()
        threads = self._decide(
            "threads", block_size(None if items is None else items // width, self.target), block_sizes()
        )
        thread = share_out(schedule, points, threads)
        for stage in reversed(stages):
            self._place_stage(stage, thread, bool(neighbours))
        unroll(schedule, inner)
        for lane in neighbours:
            schedule.vectorize(lane)

    def _place_stage(self, stage: Tensor, thread: LoopRef, has_neighbours: bool) -> None:
        schedule = self.schedule
        loops = schedule.compute_at(stage, thread, Scope.REGISTER)
        spatial, reduced = loops[: stage.rank], loops[stage.rank :]
        if has_neighbours and reduced:
            schedule.reorder(*reduced, spatial[-1])
        unroll(schedule, spatial)
        unroll(schedule, reduced)

    def _possible_neighbours(self) -> list[int]:
        main = self.group.main
        last = constant(main.axes[-1].extent)
        if self.group.along[main] or last is None or any(map(self._is_read_crosswise, self.kept)):
            return [1]
        return [w for w in (1, 2, 4) if last % w == 0]

    def _is_read_crosswise(self, stage: Tensor) -> bool:
        """Whether ``stage`` is not read point by point along the last axes of its readers."""
        return any(
            x.source is stage and x.indices[-1:] != reader.axes[-1:]
            for reader in self.group.readers(stage) for x in loads(reader.body) if reader.body is not None
        )  # fmt: skip

    def _neighbours(self) -> int:
        """Results side by side for a thread: windows that overlap share most of what is loaded."""
        (*_, largest), items = self._possible_neighbours(), self.group.points()
        overlap = any(_windows_overlap(t) for t in self.group.reductions)
        while largest > 1 and (not overlap or items is None or items // largest < self.target.cores * _BUSY):
            largest //= 2
        return largest

    # ------------------------------------------------------------------ several threads for a result

    def _shares(self) -> int:
        """Threads that share in a sum, 1 if each result is one thread's work."""
        group = self.group
        items, steps = group.points(), count(a.extent for t in group.reductions for a in t.reduce_axes)
        alone = len(group.reductions) == 1 and not group.along[group.main]
        if not alone or items is None or steps is None or steps < _LONG or not group.reductions[0].reduce_axes:
            return 1
        few = items < self.target.cores * _BUSY
        return self._decide("shares", min(32, max(4, largest_power(steps // 16))) if few else 1, [1, 8, 16, 32])

    def _share_sums(self, total: Tensor, shares: int) -> None:
        """Partial sums in shared memory, of results side by side; then one thread adds up those of a result."""
        schedule, main = self.schedule, self.group.main
        loops = list(schedule[main].loops)
        column = max(range(len(loops)), key=lambda d: (constant(main.shape[d]) != 1, d))
        width = self._decide("columns", self._width(shares), [8, 16, 32])
        blocks, thread = schedule.split(loops[column], width)
        others = [x for d, x in enumerate(loops) if d != column]
        schedule.reorder(*others, blocks, thread)
        bind_blocks(schedule, [*others, blocks])
        axis = max(range(len(total.reduce_axes)), key=lambda d: constant(total.reduce_axes[d].extent) or 0)
        partial = schedule.rfactor(total, axis, shares, blocked=True)
        unroll(schedule, schedule.compute_at(total, thread, Scope.REGISTER)[total.rank :])
        schedule.bind(thread, "thread")
        sums = schedule.cache_write(partial)
        share, *spatial = schedule.compute_at(partial, blocks, Scope.SHARED)
        single = [x for x in spatial if constant(schedule.extent(x)) == 1]
        (result,) = (x for x in spatial if x not in single)
        schedule.reorder(*single, share, result)
        schedule.bind(share, "thread")
        schedule.bind(result, "thread")
        unroll(schedule, schedule.compute_at(sums, result, Scope.REGISTER)[partial.rank :])

    def _width(self, shares: int) -> int:
        """Results of a block: as many as its threads have warps for, but some for each multiprocessor."""
        items, width = self.group.points() or 1, max(8, min(WARP, _SHARES // shares))
        while width > 8 and items // width < self.target.cores:
            width //= 2
        return width


def _windows_overlap(tensor: Tensor) -> bool:
    """Whether neighbouring results are made of some of the same elements."""
    assert tensor.body is not None
    last = tensor.axes[-1]
    return any(
        any(depends_on(i, last) and _depends_on_any(i, tensor.reduce_axes) for i in x.indices)
        and stride_of(x, last) == 1
        for x in loads(tensor.body)
    )


def _depends_on_any(index: object, axes: Sequence[Axis]) -> bool:
    return any(depends_on(index, a) for a in axes)  # type: ignore[arg-type]
