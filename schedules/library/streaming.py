"""Schedules for products of a few rows with a large matrix that is used where it lies.

Such a product is bound by how fast the matrix arrives. Walking down its columns, a register tile at a time, would touch
a new page at every step; instead a few rows of the matrix are read side by side from end to end, and the results they
are added to stay in the caches. The threads share out its columns; where these are few, its rows, each thread then has
results of its own, which are added up: a share of a narrow matrix's columns is half of each page of memory, so it would
find its place in half of a cache alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from polycomp.panels import are_rows_in_one_set
from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import Contraction, constant, depends_on, stride_of
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.elementwise import is_large, parallelize, vectorize_innermost
from polycomp.schedules.library.epilogue import result_and_loops
from polycomp.schedules.library.roles import choose_roles, panel_of
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import PAGE_BYTES, Target
from polycomp.te import Tensor

_MOST_ROWS = 32  # with more, the work of copying the matrix into panels is a small part
_LEAST_DEPTH = 32  # a register tile follows so many rows of the matrix at once, and adds to no results in memory
_TILE_ROWS = 8
_TILE_VECTORS = 2
_STREAMS = 16  # rows of the matrix that are read side by side: the hardware follows some tens of streams
_SINGLE_ROW_VECTORS = 4
_SINGLE_ROW_STREAMS = (8, 4)  # unrolled: a single row has no other work to hide the latency of its additions


def decide_streamed(schedule: Schedule, contraction: Contraction, target: Target) -> bool:
    """Whether the vector operand, if it is a plain matrix for a few rows, is read where it lies."""
    roles, tensor, load = choose_roles(contraction), contraction.tensor, contraction.vector
    if roles.block is not None or roles.rows or panel_of(contraction) is not None or len(tensor.reduce_axes) != 1:
        return False
    rows = 1 if roles.row is None else constant(tensor.axes[roles.row].extent)
    depth, width = constant(tensor.reduce_axes[0].extent), constant(tensor.axes[-1].extent)
    plain = stride_of(load, tensor.axes[-1]) == 1 and load.indices[-1] == tensor.axes[-1]
    if not plain or not depends_on(load, tensor.reduce_axes[0]) or rows is None or depth is None or width is None:
        return False
    if rows > 2 * _MOST_ROWS:
        return False
    far, deep = depth * width * load.dtype.bytes > target.l1_bytes, depth > _LEAST_DEPTH
    pays = rows <= _MOST_ROWS and far and deep
    return schedule.decide(f"{tensor.name}.streamed", pays, [False, True])


class StreamedProduct(Deciding):
    """The steps of scheduling one such product, with what they share."""

    def __init__(self, schedule: Schedule, contraction: Contraction, target: Target) -> None:
        super().__init__(schedule, contraction.tensor)
        self.contraction = contraction
        self.roles = choose_roles(contraction)
        self.extents = [constant(a.extent) for a in contraction.tensor.axes]
        self.work = [a.extent for a in (*contraction.tensor.axes, *contraction.tensor.reduce_axes)]
        self.lanes = target.lanes(max(contraction.tensor.dtype.bytes, 4))
        self.target = target
        self.rows = 1 if self.roles.row is None else self.extents[self.roles.row] or 1
        vectors = self._decide("vectors", _TILE_VECTORS if self.rows > 1 else _SINGLE_ROW_VECTORS, [1, 2, 3, 4])
        self.width = vectors * self.lanes

    def apply(self, final: Tensor | None) -> None:
        """Share out the columns, or else the reduction; ``final`` is the stage that reads the product at its own point,
        if there is one."""
        shares = self._shares_of_depth()
        if shares > 1:
            self._apply_by_depth(shares, final)
        else:
            self._apply_by_columns(*result_and_loops(self.schedule, self.contraction.tensor, final))

    def _shares_of_depth(self) -> int:
        """Pieces of the reduction, one for each thread; 1 where the columns are shared out instead."""
        cores, depth = self.target.cores, constant(self.contraction.tensor.reduce_axes[0].extent) or 1
        alone = all(self.extents[d] == 1 for d in self.roles.batch)
        if cores == 1 or not alone or not is_large(self.work) or depth < 2 * cores * _STREAMS or depth % cores:
            return 1
        return self._decide("shares_of_depth", cores if self._row_bytes() < cores * PAGE_BYTES else 1, [1, cores])

    def _apply_by_depth(self, shares: int, final: Tensor | None) -> None:
        """Compute ``shares`` partial results, each from some rows of the matrix, and add them up."""
        schedule, tensor = self.schedule, self.contraction.tensor
        partial = schedule.rfactor(tensor, 0, shares, blocked=True)
        share, *loops = schedule[partial].loops
        self._place(loops)
        schedule.parallel(share)
        result, loops = result_and_loops(schedule, tensor, final)
        columns, vector = schedule.split(loops[self.roles.vector], self.lanes)
        schedule.reorder(*(x for x in loops if x is not loops[self.roles.vector]), columns, vector)
        *spatial, partials = schedule.compute_at(result, columns, Scope.REGISTER)
        schedule.reorder(partials, spatial[-1])
        for loop in (spatial[-1], vector):
            schedule.vectorize(loop)

    def _apply_by_columns(self, result: Tensor, loops: Sequence[LoopRef]) -> None:
        """Compute ``result`` for some columns at a time; ``loops`` are those of the stage that reads it at its own
        point, in the order of the product's axes."""
        schedule, roles = self.schedule, self.roles
        chunks, columns = schedule.split(loops[roles.vector], self._chunk(result))
        batch = [loops[d] for d in roles.batch]
        rows = [] if roles.row is None else [loops[roles.row]]
        schedule.reorder(*batch, chunks, *rows, columns)
        self._place(schedule.compute_at(result, chunks))
        vectorize_innermost(schedule, [columns], self.lanes)
        if is_large(self.work):
            parallelize(schedule, [*batch, chunks], self.target)

    def _chunk(self, result: Tensor) -> int:
        """Columns whose results stay in the second-level cache, in equal shares for all cores, in whole tiles."""
        width, tile = self.extents[-1] or 1, self.width
        fitting = max(tile, self.target.l2_bytes // 4 // (self.rows * result.dtype.bytes))
        shares = self.target.cores if is_large(self.work) else 1
        count = math.ceil(width / fitting)
        count = math.ceil(count / shares) * shares
        return math.ceil(width / count / tile) * tile

    def _place(self, loops: Sequence[LoopRef]) -> None:
        """The product's own loops: a block of the matrix's rows, tiles of columns, tiles of rows, the block."""
        schedule = self.schedule
        *spatial, depth = loops
        streams = self._decide("streams", self._streams(), [4, 8, 16, 32])
        blocks, step = schedule.split(depth, streams)
        columns, vector = schedule.split(spatial[-1], self.width)
        row_tiles: list[LoopRef] = []
        tile: list[LoopRef] = []
        if self.roles.row is not None:
            most = self._decide("rows", _TILE_ROWS, [4, 8, 12, 16])
            height = math.ceil(self.rows / math.ceil(self.rows / most))
            outer, row = schedule.split(spatial[self.roles.row], height)
            row_tiles, tile = [outer], [row]
            schedule.unroll(row)
        rest = [spatial[d] for d in self.roles.batch]
        schedule.reorder(*rest, blocks, columns, *row_tiles, step, *tile, vector)
        schedule.vectorize(vector)
        if self.rows == 1:
            schedule.unroll(step)

    def _streams(self) -> int:
        """Rows of the matrix side by side. Where they lie whole pages apart all of them are in one set of the
        first-level cache, which must have ways for all and for the results."""
        if self.rows > 1:
            return _STREAMS
        many, few = _SINGLE_ROW_STREAMS
        ways = self.target.l1_bytes // PAGE_BYTES
        return few if are_rows_in_one_set(self._row_bytes()) and many >= ways else many

    def _row_bytes(self) -> int:
        """Of the matrix."""
        return (self.extents[-1] or 1) * self.contraction.vector.dtype.bytes
