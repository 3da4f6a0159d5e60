"""Attention on a GPU: a product, what makes its rows to weights (a softmax), and a product of these, in one launch.

A block takes a tile of rows through all of it. Its scores for all keys are in shared memory, and so are the weights
that they become: the matrix of scores is never in global memory (Dao et al., "FlashAttention", NeurIPS 2022; here the
rows of a tile are whole, as in Rabe and Staats, "Self-attention does not need O(n^2) memory", 2021). Where the number
of keys is not known, or so large that such rows do not fit shared memory, each part has a launch of its own: sums that
are corrected when a larger score comes are not what tensors say.
"""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import constant, is_expensive, is_reduction
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.epilogue import epilogue_of, loops_in_order
from polycomp.schedules.library.gpu.binding import WARP, bind_blocks, unroll
from polycomp.schedules.library.gpu.contraction import inline_operands
from polycomp.schedules.library.gpu.products import Product, vector_width
from polycomp.schedules.library.gpu.rows import Lanes, Partials, split_sum
from polycomp.schedules.library.gpu.scores import Attention
from polycomp.schedules.library.gpu.tiles import (
    LANE_COLUMNS,
    LANE_ROWS,
    ROWS,
    Part,
    Tile,
    best_tile,
    operand_padding,
    padding,
    tile_of,
)
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Tensor

_TENSOR_BYTES = 32  # of each operand's steps that an instruction of tensor cores takes
_HELD_VALUES = 32  # of a row that a thread keeps in its registers, if its row may have more threads


def schedule_attention(
    schedule: Schedule, stages: Sequence[Tensor], attention: Attention, target: Target
) -> frozenset[Tensor]:
    """Schedule an attention and what reads it at its own point; returns those of ``stages``, all that have not been
    scheduled yet, which are done."""
    return _Scheduling(schedule, stages, attention, target).apply()


class _Scheduling(Deciding):
    """The steps, with what they share."""

    def __init__(self, schedule: Schedule, stages: Sequence[Tensor], attention: Attention, target: Target) -> None:
        super().__init__(schedule, attention.second.tensor)
        self.attention, self.target, self.stages = attention, target, stages
        self.final = epilogue_of(attention.second.result, stages, schedule.kernel.outputs)
        self.tile = self._choose_tile()
        self.parts = {attention.first.tensor: self.tile.first, attention.second.tensor: self.tile.second}
        self.lanes = self._choose_lanes()
        self.inlined = self._choose_inlined()
        self.threads_of: dict[Tensor, LoopRef] = {}  # the innermost loop over threads of a stage

    def apply(self) -> frozenset[Tensor]:
        """Tile the second product's rows, and compute everything that a tile needs inside of its iteration."""
        attention, schedule = self.attention, self.schedule
        operands = (attention.first.left, attention.first.right, attention.second.right)
        done = [*inline_operands(schedule, self.stages, operands), *attention.stages]
        sums = {t: split_sum(schedule, t, 0, self.lanes) for t in attention.stages if is_reduction(t)}
        own = {t: schedule.cache_write(p.threads or p.lanes) for t, p in sums.items()}
        for stage in self.inlined:
            schedule.compute_inline(stage)
        block = self._tile_result()
        self._multiply(attention.second, block, [attention.second.right])
        rows = self._place_weights(block)
        for stage in reversed(attention.stages[1:-1]):
            if stage in sums:
                self._place_sum(stage, sums[stage], own[stage], rows)
            elif stage not in self.inlined:
                self._walk(stage, schedule.compute_at(stage, rows, Scope.REGISTER))
        keys = self._place_scores(block)
        self._multiply(attention.first, keys, [attention.first.left, attention.first.right])
        for product in (attention.first, attention.second):
            done += [product.left, product.right, product.tensor, product.result]
        return frozenset([*done, *([] if self.final is None else [self.final])])

    def _choose_tile(self) -> Tile:
        attention, target = self.attention, self.target
        own = best_tile(attention, target)
        assert own is not None  # else it is prepared as something else
        possible = {rows: tile for rows in ROWS if (tile := tile_of(attention, target, rows)) is not None}
        rows = self._decide("rows", own.rows, list(possible))
        return possible[rows]

    # ------------------------------------------------------------------ products

    def _tile_result(self) -> LoopRef:
        """Bind the tiles of the result to blocks and their parts to threads; returns the loop of blocks."""
        schedule, product = self.schedule, self.attention.second
        part = self.parts[product.tensor]
        if self.final is None:
            loops = list(schedule[product.result].loops)
        else:
            loops = loops_in_order(schedule, self.final, product.result)
            schedule.compute_inline(product.result)
        batch, rows, columns = ([loops[d] for d in role] for role in (product.batch, product.rows, product.columns))
        schedule.reorder(*batch, *rows, *columns)
        block, row = schedule.split(self._fused(rows), part.rows)
        column_block, column = schedule.split(self._fused(columns), part.columns)
        *_, last = self._share_out(part, [*batch, block, column_block], row, column)
        bind_blocks(schedule, [*batch, block, column_block])
        schedule.vectorize(last)
        return column_block

    def _fused(self, loops: Sequence[LoopRef]) -> LoopRef:
        first, *others = loops
        for other in others:
            first = self.schedule.fuse(first, other)
        return first

    def _share_out(self, part: Part, outer: Sequence[LoopRef], row: LoopRef, column: LoopRef) -> list[LoopRef]:
        """Share the elements of a tile out to threads; returns the loops over a thread's own, all unrolled."""
        schedule = self.schedule
        threads, own = self._split(part, row, column)
        schedule.reorder(*outer, *threads, *own)
        for loop in own:
            schedule.unroll(loop)
        return own

    def _split(self, part: Part, row: LoopRef, column: LoopRef) -> tuple[list[LoopRef], list[LoopRef]]:
        """Loops over threads, bound to them, and over a thread's own rows and columns."""
        split = self.schedule.split
        if part.tensor:
            row_warps, row = split(row, part.own_rows)
            column_warps, column = split(column, part.own_columns)
            row_tiles, row = split(row, 2 * LANE_ROWS)
            column_tiles, column = split(column, 2 * LANE_COLUMNS)
            halves, lane_rows = split(row, LANE_ROWS)
            lane_columns, neighbours = split(column, 2)
            threads, own = (
                [row_warps, column_warps, lane_rows, lane_columns],
                [row_tiles, halves, column_tiles, neighbours],
            )
        else:
            (across_rows, own_rows), (across_columns, own_columns) = (
                self._split_evenly(loop, whole // mine, group)
                for loop, whole, mine, group in (
                    (row, part.rows, part.own_rows, part.neighbours[0]),
                    (column, part.columns, part.own_columns, part.neighbours[1]),
                )
            )
            threads, own = [across_rows, across_columns], [*own_rows, *own_columns]
        for loop in threads:
            self.schedule.bind(loop, "thread")
        return threads, own

    def _split_evenly(self, loop: LoopRef, threads: int, group: int) -> tuple[LoopRef, list[LoopRef]]:
        """Threads, and a thread's own: groups of neighbours, as many elements apart as all threads have."""
        groups, within = self.schedule.split(loop, threads * group)
        thread, neighbours = self.schedule.split(within, group)
        return thread, [groups, neighbours]

    def _multiply(self, product: Product, where: LoopRef, streamed: Sequence[Tensor]) -> None:
        """Compute a part of a product in registers, and what it reads of the operands ``streamed`` step by step."""
        schedule, part = self.schedule, self.parts[product.tensor]
        *_, row, column, k = schedule.compute_at(product.tensor, where, Scope.REGISTER)
        steps, k = schedule.split(k, part.step)
        threads, own = self._split(part, row, column)
        if part.tensor:
            (row_tiles, halves, column_tiles, neighbours) = own
            groups, k = schedule.split(k, _TENSOR_BYTES // product.left.dtype.bytes)
            schedule.reorder(steps, *threads, groups, row_tiles, column_tiles, k, halves, neighbours)
            schedule.serial(groups)
            schedule.unroll(row_tiles)
            schedule.unroll(column_tiles)
            schedule.tensorize(halves, neighbours, k)
        else:
            schedule.reorder(steps, *threads, k, *own)
            for loop in (k, *own):
                schedule.unroll(loop)
        for operand in streamed:
            self._copy(operand, steps, product)
        if constant(schedule.extent(steps)) != 1:
            schedule.pipeline(steps, part.stages)

    def _copy(self, operand: Tensor, steps: LoopRef, product: Product) -> None:
        """Copy a step's part of an operand to shared memory, all threads together."""
        schedule = self.schedule
        *_, outer, inner = schedule.compute_at(operand, steps, Scope.SHARED)
        extra = operand_padding(operand, product, self.parts[product.tensor])
        schedule.pad_storage(operand, operand.rank - 1, extra)
        width = vector_width(operand, self.target.vector_bytes // operand.dtype.bytes)
        loop, lanes = schedule.split(schedule.fuse(outer, inner), width)
        rounds, threads = schedule.split(loop, self.tile.threads)
        schedule.reorder(threads, rounds, lanes)
        schedule.bind(threads, "thread")
        schedule.unroll(rounds)
        schedule.vectorize(lanes)

    # ------------------------------------------------------------------ rows

    def _choose_lanes(self) -> Lanes:
        """How a row is shared out: rows side by side where threads are more than a warp for each."""
        keys, stored = self.attention.keys, self.attention.scores.dtype.bytes
        threads = self.tile.threads // self.tile.rows
        while threads < WARP and keys > _HELD_VALUES * threads:
            threads *= 2
        widths = [n for n in (8, 4, 2) if n * stored <= self.target.vector_bytes and keys % (n * threads) == 0]
        return Lanes(threads, widths[0] if widths else 1)

    def _choose_inlined(self) -> list[Tensor]:
        """The stages between scores and weights that are made where they are read: all but what is expensive, and read
        again along a row."""
        scores, *stages, _ = self.attention.stages
        again = [t for t in stages if is_expensive(t) and len(self._users(t)) > 1 and t.rank == scores.rank]
        return [t for t in stages if not is_reduction(t) and t not in again]

    def _users(self, stage: Tensor) -> list[Tensor]:
        return [t for t in self.attention.stages if stage in t.inputs()]

    def _readers(self, stage: Tensor) -> set[Tensor]:
        """The stages of which loops read ``stage``."""
        found: set[Tensor] = set()
        for user in self._users(stage):
            found |= self._readers(user) if user in self.inlined else {user}
        return found

    def _place_weights(self, block: LoopRef) -> LoopRef:
        """Compute the weights of a tile in shared memory; returns the loop over rows, side by side, of the tile."""
        schedule, weights = self.schedule, self.attention.weights
        *outer, row, key = schedule.compute_at(weights, block, Scope.SHARED)
        schedule.pad_storage(weights, weights.rank - 1, padding(weights))
        rounds, row = schedule.split(row, self.tile.threads // self.lanes.threads)
        self._walk(weights, [*outer, rounds, row, key])
        return rounds

    def _walk(self, stage: Tensor, loops: Sequence[LoopRef]) -> None:
        """Share rows and their elements out to threads."""
        schedule = self.schedule
        *outer, row, key = loops
        key, vector = schedule.split(key, self.lanes.vector)
        steps, thread = schedule.split(key, self.lanes.threads)
        schedule.reorder(*outer, row, thread, steps, vector)
        for loop in (row, thread):
            schedule.bind(loop, "thread")
        schedule.unroll(steps)
        schedule.vectorize(vector)
        self.threads_of[stage] = thread

    def _place_sum(self, stage: Tensor, sums: Partials, own: Tensor, rows: LoopRef) -> None:
        """Reduce rows: each thread its own elements, whose result it stores, and whoever needs the whole, these."""
        schedule = self.schedule
        readers = self._readers(stage)
        if len(readers) == 1:
            *_, partial = schedule.compute_at(stage, self.threads_of[readers.pop()], Scope.REGISTER)
        else:
            *_, row, partial = schedule.compute_at(stage, rows, Scope.SHARED)
            schedule.bind(row, "thread")
        schedule.unroll(partial)
        stored = sums.threads or sums.lanes
        loops = schedule.compute_at(stored, rows, Scope.SHARED)
        thread, row = (loops[0], loops[-1]) if sums.threads is not None else (loops[-1], loops[-2])
        schedule.reorder(row, thread)
        for loop in (row, thread):
            schedule.bind(loop, "thread")
        self.threads_of[stage] = thread
        loops = schedule.compute_at(own, thread, Scope.REGISTER)
        unroll(schedule, loops[stage.rank + 1 :])
        if sums.threads is not None:
            loops = schedule.compute_at(sums.lanes, thread, Scope.REGISTER)
            vector, steps = loops[stage.rank], loops[stage.rank + 1 :]
            schedule.reorder(*steps, vector)
            unroll(schedule, steps)
            schedule.vectorize(vector)

    def _place_scores(self, block: LoopRef) -> LoopRef:
        """Compute the scores of a tile in shared memory; returns the loop over keys, of which many are side by side."""
        schedule, scores = self.schedule, self.attention.scores
        part = self.parts[self.attention.first.tensor]
        *outer, row, key = schedule.compute_at(scores, block, Scope.SHARED)
        schedule.pad_storage(scores, scores.rank - 1, padding(scores))
        keys, key = schedule.split(key, part.columns)
        *_, last = self._share_out(part, [*outer, keys], row, key)
        schedule.vectorize(last)
        return keys
