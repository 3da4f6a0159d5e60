"""Schedules for matrix products between transforms, such as Winograd's convolutions.

The products of all transform points are taken for a block of tiles at a time, whose transformed data stays in cache:
its input is padded and transformed, its products are made in register tiles, and those are transformed back. Blocks
are shared out to the threads where there are enough of them, and otherwise the stages of each block.

The stages are, with their axes (c and k are lanes of vectors, co and ko blocks of them; p counts the tiles):

    padded   [n, co, h, w, c]        the input with zeros around it, where it needs them
    columns  [n, co, p, i, s, c]     one pass of the transform, by cases of i
    data     [n, i, j, co, p, c]     the other pass, by cases of j
    products [n, i, j, ko, p, k]     the contraction
    inverse  [n, ko, p, a, j, k]     one pass of the transform back, by cases of a
    final    [n, ko, h, w, k]        the other pass, by cases of w % m; tile p is (h // m, w // m)

Loops over cases are unrolled, so that each case is a sum without tests.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from polycomp.expr import Binary, Const, walk
from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import as_contraction, constant, points_read
from polycomp.schedules.library.contraction import (
    LINES_PER_RUN,
    MOST_TILES_ASKING,
    STEPS_UNROLLED,
    Arrival,
    choose_tile,
    column_arrival,
    cost,
    row_cycles,
    row_tiles,
)
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.elementwise import parallelize
from polycomp.schedules.rewrite import loop_names
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Tensor

_PREFETCH_STEPS = 16
_WIDEST_TILE = 4  # vectors
_BLOCKS, _STAGES = "blocks", "stages"
_BLOCKS_PER_CORE = 4  # from here on, blocks of tiles are shared out evenly enough
_NEAR_BYTES_PER_CYCLE, _FAR_BYTES_PER_CYCLE = 24.0, 16.0  # streams from the second-level cache, and from behind it


@dataclasses.dataclass(frozen=True)
class Transformed:
    """The stages of such a kernel. ``between`` are further stages between ``inverse`` and ``final``, producers first;
    ``tile`` is m, ``high`` and ``wide`` the numbers of tiles."""

    padded: tuple[Tensor, ...]
    columns: Tensor
    data: Tensor
    products: Tensor
    inverse: Tensor
    between: tuple[Tensor, ...]
    final: Tensor
    tile: int
    high: int
    wide: int


def as_transformed(stages: Sequence[Tensor]) -> Transformed | None:
    """The kernel of ``stages`` (all its computed tensors, producers first), or None when it is of another kind."""
    products = next((t for t in stages if as_contraction(t) is not None), None)
    contraction = None if products is None else as_contraction(products)
    if products is None or contraction is None or all(len(points_read(t, products)) < 2 for t in stages):
        return None
    data = contraction.other.source
    columns = _computed_input(data)
    inverse = next(t for t in stages if products in t.inputs())
    position, final = stages.index(inverse), stages[-1]
    divisor = _divisor(stages[position + 1 :], final)
    shapes = [t.rank for t in (data, products, inverse, final)]
    if columns is None or columns.rank != 6 or shapes != [6, 6, 6, 5] or divisor is None:
        return None
    high, wide = (constant(n) for n in final.shape[2:4])
    if high is None or wide is None:
        return None
    padded = tuple(t for t in columns.inputs() if t.body is not None)
    between, tiles = tuple(stages[position + 1 : -1]), (-(-high // divisor), -(-wide // divisor))
    return Transformed(padded, columns, data, products, inverse, between, final, divisor, *tiles)


def _computed_input(tensor: Tensor) -> Tensor | None:
    return next((t for t in tensor.inputs() if t.body is not None), None)


def _divisor(stages: Sequence[Tensor], final: Tensor) -> int | None:
    """m, by which the rows of ``final``, or of what it reads at its own point, are divided into tiles."""
    for stage in stages:
        for e in walk(stage.body) if stage.body is not None and stage.rank == final.rank else ():
            if isinstance(e, Binary) and e.op == "floordiv" and isinstance(e.right, Const) and e.left == stage.axes[2]:
                return int(e.right.value)
    return None


def schedule_transformed(schedule: Schedule, kernel: Transformed, target: Target) -> None:
    """Schedule all stages of ``kernel``."""
    _Blocks(schedule, kernel, target).apply()


class _Blocks(Deciding):
    """The steps of scheduling one kernel, with what they share. ``rows`` of tiles make a block."""

    def __init__(self, schedule: Schedule, kernel: Transformed, target: Target) -> None:
        super().__init__(schedule, kernel.products)
        self.kernel, self.target = kernel, target
        self.products = kernel.products
        contraction = as_contraction(kernel.products)
        assert contraction is not None
        self.weights = contraction.vector.source
        self.depth = math.prod(constant(a.extent) or 1 for a in kernel.products.reduce_axes)
        self.vectors = constant(kernel.products.shape[3]) or 1
        self.points = math.prod(constant(n) or 1 for n in kernel.products.shape[1:3])
        candidates = [r for r in range(1, kernel.high + 1) if kernel.high % r == 0]
        self.rows = self._decide("rows_of_tiles", min(candidates, key=lambda r: (self._cycles(r), r)), candidates)

    def apply(self) -> None:
        """Blocks outermost; every stage of a block within it."""
        sums = self.schedule.cache_write(self.products)
        outer, block, shared = self._place_final()
        shared_products, asking = self._place_products(sums, block)
        shared_data = self._place_data(block)
        *_, columns = shared_products
        around: LoopRef | None = columns
        if self._decide("share_out", *self._shares()) == _BLOCKS:
            self.schedule.parallel(self.schedule.fuse(outer, block))
        else:
            stages = (shared_products, shared, shared_data)
            fused, *_ = [parallelize(self.schedule, loops, self.target) for loops in stages]
            around = columns if columns.name in loop_names(self.schedule.tree) else fused
        if asking is not None and around is not None:
            self.schedule.prefetch(self.weights, asking, 1, around=around)

    # ------------------------------------------------------------------ choices

    def _tile(self, tiles: int) -> tuple[int, int]:
        """Rows and vectors of the register tile for the products of a block of ``tiles``."""
        registers = self.target.vector_registers
        space = (1, tiles, self.vectors)
        return choose_tile(space, registers, self._widths(), lambda v: self._arrival(v, tiles), self.depth)[1:]

    def _widths(self) -> Sequence[int]:
        return range(1, min(self.vectors, _WIDEST_TILE) + 1)

    def _arrival(self, vectors: int, tiles: int) -> Arrival:
        lanes = constant(self.products.reduce_axes[-1].extent) or 1
        row = row_cycles(4 * tiles * self.depth, lanes, self.target)  # all columns of a point read the same rows
        return column_arrival(self.depth, vectors, self.vectors * self.points, self.target, row)

    def _cycles(self, rows: int) -> float:
        """Of all blocks of ``rows``: their register tiles, and moving transformed data out and in again."""
        tiles = rows * self.kernel.wide
        tile = self._tile(tiles)
        step = cost((1, tiles, self.vectors), (1, *tile), self._arrival(tile[1], tiles), self.depth)
        lanes = constant(self.products.shape[5]) or 1
        moved = 4 * tiles * self.points * (self.depth + self.vectors * lanes)
        near = moved <= self.target.l2_bytes * 2 // 3
        moving = 2 * moved / (_NEAR_BYTES_PER_CYCLE if near else _FAR_BYTES_PER_CYCLE)
        return self.kernel.high // rows * (step * self.depth * self.points + moving)

    def _shares(self) -> tuple[str, list[str]]:
        """What the threads share out: blocks, where those alone keep all cores busy, or what each is made of.

        A batch of unknown size counts as one.
        """
        blocks = self.kernel.high // self.rows * (constant(self.kernel.final.shape[0]) or 1)
        enough = blocks % self.target.cores == 0 or blocks >= _BLOCKS_PER_CORE * self.target.cores
        return _BLOCKS if enough else _STAGES, [_BLOCKS, _STAGES]

    # ------------------------------------------------------------------ stages

    def _place_final(self) -> tuple[LoopRef, LoopRef, list[LoopRef]]:
        """Returns the loops over the batch and over blocks, and those over what is made of a block."""
        schedule, kernel = self.schedule, self.kernel
        n, ko, h, w, k = schedule[kernel.final].loops
        rows, a = schedule.split(h, kernel.tile)
        column, b = schedule.split(w, kernel.tile)
        block, row = schedule.split(rows, self.rows)
        schedule.reorder(n, block, ko, row, column, a, b, k)
        for tensor in (*reversed(kernel.between), kernel.inverse):
            self._unroll(schedule.compute_at(tensor, column, Scope.REGISTER))
        self._unroll((a, b, k))
        return n, block, [ko, row]

    def _unroll(self, loops: Sequence[LoopRef]) -> None:
        """Straight-line code on vectors."""
        for loop in loops[:-1]:
            self.schedule.unroll(loop)
        self.schedule.vectorize(loops[-1])

    def _place_products(self, sums: Tensor, block: LoopRef) -> tuple[list[LoopRef], LoopRef | None]:
        """The products in register tiles; returns the outer loops, and the reduction's loop in which a tile asks for
        its share of the next column's weights, if it does."""
        schedule = self.schedule
        tiles = self.rows * self.kernel.wide
        space, registers = (1, tiles, self.vectors), self.target.vector_registers
        possible = [t[1:] for width in self._widths() for t in row_tiles(space, width, registers)]
        rows, vectors = self._decide("tile", self._tile(tiles), possible)
        n, i, j, ko, p, k = schedule.compute_at(self.products, block)
        columns, column = schedule.split(ko, vectors)
        outer, tile = schedule.split(p, rows)
        schedule.reorder(n, i, j, columns, outer, tile, column, k)
        self._unroll((tile, column, k))
        loops = schedule.compute_at(sums, outer, Scope.REGISTER)
        spatial, channels = loops[: sums.rank], loops[sums.rank : -1]  # no loop over blocks of channels if there is one
        lanes = constant(self.products.reduce_axes[-1].extent) or 1
        steps = self._decide("steps_unrolled", STEPS_UNROLLED, [n for n in (1, 2, 4, 8) if lanes % n == 0])
        c, step = schedule.split(loops[-1], steps)
        schedule.reorder(*spatial[:3], *channels, c, step, spatial[4], spatial[3], spatial[5])
        self._unroll((step, spatial[4], spatial[3], spatial[5]))
        distance = self._decide("prefetch", _PREFETCH_STEPS, [0, 2, 4, 8, 16, 32])
        if distance:
            schedule.prefetch(self.weights, c, max(1, distance // steps))
        if channels and self._decide("prefetch_rows", True, [False, True]):
            schedule.prefetch(self.kernel.data, channels[0], 1)
        many = math.ceil(tiles / rows)
        asks = self._decide("ask_for_next", 1 < many <= MOST_TILES_ASKING, [False, True])
        burst = vectors * (constant(self.products.reduce_axes[-1].extent) or 1) > LINES_PER_RUN * many
        asking = c if burst or not channels else channels[0]
        return [n, i, j, columns], asking if asks else None

    def _place_data(self, block: LoopRef) -> list[LoopRef]:
        """The transformed data, tile by tile; returns the outer loops."""
        schedule, kernel = self.schedule, self.kernel
        n, i, j, co, p, c = schedule.compute_at(kernel.data, block)
        row, column = schedule.split(p, kernel.wide)
        schedule.reorder(n, co, row, column, i, j, c)
        self._unroll((i, j, c))
        *_, inner, s, lane = schedule.compute_at(kernel.columns, column, Scope.REGISTER)
        schedule.reorder(s, inner)
        self._unroll((s, inner, lane))
        for tensor in kernel.padded:
            schedule.vectorize(schedule.compute_at(tensor, co)[-1])
        return [n, co]
