"""Schedules for attention: a product, a softmax over its rows, and a product of that, as one kernel.

A tile of rows is taken through all of it before the next one: its scores are made with a register tile and kept in
scratch memory of the thread, each row becomes weights in place of its scores, and the weights are multiplied with a
second register tile. So the matrix of scores never exists (the idea of Rabe and Staats, "Self-attention does not need
O(n^2) memory", 2021; a tile's rows are whole here, because they fit the second-level cache).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import Contraction, access_number, as_contraction, constant, is_reduction
from polycomp.schedules.library.elementwise import is_large, lanes_for, parallelize, schedule_elementwise
from polycomp.schedules.library.epilogue import epilogue_of, result_and_loops
from polycomp.schedules.library.reduction import partial_sums, place_partial, place_stage
from polycomp.schedules.library.roles import choose_roles
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Tensor

_VECTORS = 2  # of a register tile


@dataclasses.dataclass(frozen=True)
class Attention:
    """``scores`` is the first product, ``weights`` the last of ``between`` (producers first), which make the rows of
    scores to the rows that the second product sums with."""

    scores: Contraction
    between: tuple[Tensor, ...]
    weights: Tensor
    result: Contraction


def as_attention(stages: Sequence[Tensor], outputs: Sequence[Tensor]) -> Attention | None:
    """The stages of a kernel as attention, or None when they are something else."""
    contractions = [c for c in map(as_contraction, stages) if c is not None]
    if len(contractions) != 2 or len(outputs) != 1:
        return None
    scores, result = contractions
    weights, last = result.other.source, stages[-1]
    between = tuple(stages[stages.index(scores.tensor) + 1 : stages.index(result.tensor)])
    if stages[0] is not scores.tensor or weights not in between or not any(map(is_reduction, between)):
        return None
    if last is not result.tensor and epilogue_of(result.tensor, stages[-2:], outputs) is not last:
        return None
    return Attention(scores, between, weights, result) if _fits(scores, weights, result) else None


def _fits(scores: Contraction, weights: Tensor, result: Contraction) -> bool:
    """Whether both products have plain rows and columns, and the weights are as the scores and the second product
    reads them along memory."""
    roles = [choose_roles(scores), choose_roles(result)]
    plain = all(r.row is not None and r.block is None and not r.rows and not r.columns for r in roles)
    along = tuple(weights.shape) == tuple(scores.tensor.shape) and len(result.tensor.reduce_axes) == 1
    return plain and along and result.other.indices[-1] == result.tensor.reduce_axes[0]


def schedule_attention(schedule: Schedule, stages: Sequence[Tensor], attention: Attention, target: Target) -> None:
    """Schedule all ``stages`` of an attention."""
    _Scheduling(schedule, stages, attention, target).apply()


class _Scheduling:
    """The steps, with what they share."""

    def __init__(self, schedule: Schedule, stages: Sequence[Tensor], attention: Attention, target: Target) -> None:
        self.schedule, self.attention, self.target = schedule, attention, target
        self.stages = stages
        self.lanes = lanes_for(attention.scores.tensor, target)
        self.roles = choose_roles(attention.result)
        self.rows = self._choose_rows()

    def apply(self) -> None:
        """Tile the second product's rows, and compute everything that a tile needs inside of its iteration."""
        batch, tile, values = self._tile_result()
        self._place_rows(tile)
        keys = self._place_scores(tile)
        self._share_out(batch, tile, [t for t in (keys, values) if t is not None])

    def _choose_rows(self) -> int:
        """Rows of a tile: as many as fit the registers, rather some less if they divide the rows evenly."""
        assert self.roles.row is not None
        extent = constant(self.attention.result.tensor.axes[self.roles.row].extent)
        most = max(1, (self.target.vector_registers - _VECTORS - 1) // _VECTORS)
        even = [n for n in range(most, most // 2, -1) if extent is not None and extent % n == 0]
        rows = even[0] if even else most if extent is None else -(-extent // -(-extent // most))
        return self.schedule.decide("rows", rows, range(1, most + 1))

    def _tile_result(self) -> tuple[list[LoopRef], LoopRef, Tensor | None]:
        """Tile the second product; returns its batch loops, the loop over row tiles and its packed operand."""
        schedule, tensor = self.schedule, self.attention.result.tensor
        final = epilogue_of(tensor, self.stages, schedule.kernel.outputs)
        result, loops = result_and_loops(schedule, tensor, final)
        packed = self._pack(self.attention.result, result)
        assert self.roles.row is not None
        batch = [loops[d] for d in self.roles.batch]
        tile, row = schedule.split(loops[self.roles.row], self.rows)
        columns, column = self._split_columns(loops[self.roles.vector])
        schedule.reorder(*batch, tile, columns, row, column)
        self._accumulate(result, columns)
        schedule.unroll(row)
        schedule.vectorize(column)
        return batch, tile, packed

    def _split_columns(self, loop: LoopRef) -> tuple[LoopRef, LoopRef]:
        return self.schedule.split(loop, _VECTORS * self.lanes)

    def _accumulate(self, tensor: Tensor, columns: LoopRef) -> None:
        """Sum ``tensor`` in registers, for a tile of rows and columns."""
        schedule, rank = self.schedule, tensor.rank
        symbolic = any(constant(e) is None for e in tensor.shape[-2:])
        loops = schedule.compute_at(tensor, columns, Scope.REGISTER, overcompute=symbolic)
        *rest, row, column = loops[:rank]
        schedule.unroll(row)
        schedule.vectorize(column)
        schedule.reorder(*rest, *loops[rank:], row, column)

    def _place_rows(self, tile: LoopRef) -> None:
        """Compute the weights of a tile row by row: what a row needs besides its scores is made just before.

        A row is reduced in pieces as wide as the panels its scores are made of: of a length that is only known at run
        time, wider pieces end elsewhere, and all of them would be checked element by element.
        """
        schedule, weights = self.schedule, self.attention.weights
        own = [t for t in self.attention.between if t is not weights]
        partials = {t: partial_sums(schedule, t, self.lanes, _VECTORS) for t in own if is_reduction(t)}
        *_, row, column = schedule.compute_at(weights, tile)
        for tensor in reversed(own):
            place_stage(schedule, tensor, row, self.lanes)
            partial = partials.get(tensor)
            if partial is not None:
                place_partial(schedule, partial, row)
        _, vector = schedule.split(column, self.lanes)
        schedule.vectorize(vector)

    def _place_scores(self, tile: LoopRef) -> Tensor | None:
        """Compute the scores of a tile; returns the copy of the first product's columns that is packed for it."""
        schedule, scores = self.schedule, self.attention.scores
        sums = schedule.cache_write(scores.tensor)
        packed = self._pack(scores, sums)
        *_, row, column = schedule.compute_at(scores.tensor, tile)
        columns, vector = self._split_columns(column)
        schedule.reorder(columns, row, vector)
        self._accumulate(sums, columns)
        schedule.unroll(row)
        schedule.vectorize(vector)
        return packed

    def _pack(self, product: Contraction, reader: Tensor) -> Tensor | None:
        """A copy of the operand that all row tiles walk over, as panels of a register tile's width: its rows are often
        those of many heads, which lie so far apart that they push each other out of the first-level cache."""
        load, last = product.vector, product.tensor.axes[-1]
        dimension = [d for d, i in enumerate(load.indices) if i == last]
        if not dimension or not self.schedule.decide(f"{product.tensor.name}.pack", True, [True, False]):
            return None
        width, access = _VECTORS * self.lanes, access_number(product.tensor, load)
        return self.schedule.cache_read(load.source, reader, {dimension[0]: width}, access)

    def _share_out(self, batch: list[LoopRef], tile: LoopRef, packed: Sequence[Tensor]) -> None:
        """Share the batch out to the threads, or the row tiles where there is none."""
        schedule, scores = self.schedule, self.attention.scores.tensor
        large = is_large([*scores.shape, *(a.extent for a in scores.reduce_axes)])
        where = batch[-1] if batch else tile
        if large:
            where = parallelize(schedule, batch or [tile], self.target) or where
        for copy in packed:
            if batch:
                schedule.vectorize(schedule.compute_at(copy, where)[-1])
            else:
                schedule_elementwise(schedule, copy, self.target)
