"""Schedules for contractions (matrix products and convolutions): register tiles, panels, cache blocks.

The output's last axis is the vector axis. Rows are taken along an axis that the vector operand does not depend on, so
that one vector serves a whole column of the tile; where there is none (a depthwise convolution) a row is one vector.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from polycomp.expr import Load
from polycomp.panels import are_rows_in_one_set, panel_width, wide_panel
from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import (
    Contraction,
    access_number,
    as_contraction,
    constant,
    depends_on,
    is_reduction,
    stride_of,
)
from polycomp.schedules.library.blocking import is_plain_product, panels_per_block
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.elementwise import is_large, parallelize, schedule_elementwise
from polycomp.schedules.library.epilogue import epilogue_of, result_and_loops
from polycomp.schedules.library.padding import computed_operand, rows_per_block
from polycomp.schedules.library.reduction import schedule_reductions
from polycomp.schedules.library.roles import choose_roles, panel_of
from polycomp.schedules.library.sharing import longest_share
from polycomp.schedules.library.streaming import StreamedProduct, decide_streamed
from polycomp.schedules.rewrite import loop_names
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import CACHE_LINE_BYTES, Target
from polycomp.te import Dim, Tensor

_SYMBOLIC_ROWS = 128  # what an unknown extent is taken to be when a tile is chosen

_L2_BYTES_PER_CYCLE = 24.0  # what one core gets from its second-level cache in a stream of vector loads
_PREFETCH_STEPS = 32  # at most so many steps of the reduction lie between asking for a vector and using it
_PREFETCH_BYTES = 4096  # and at most so many bytes of the vector operand
_ROWS_FORESEEN = 3  # a step of so few rows is so few instructions that the core itself looks as far ahead
LINES_PER_RUN = 4  # of a panel that a tile asks for at once before a run of the reduction's last loop
MOST_TILES_ASKING = 32  # row tiles of a column that share in asking for the next one's panel
_ROWS_WORTH_PACKING = 48  # fewer rows take less time than the copy: measured for 34 to 256 rows of 34 to 512 steps
_MANY_TILES = 64  # of rows: so many that the first one, which waits for the panels of a block, is a small part
_MANY_STEPS = 256  # of the reduction: blocks of columns and wide panels were measured from here on
_MANY_ROWS, _SOME_ROWS = 192, 96  # for which panels of four and of three vectors were measured to pay
_NARROW = 2  # vectors in a panel of constants that few rows wait for
_WIDEST_ROW = 16  # vectors in the tile of a single row: long enough to stream through memory
STEPS_UNROLLED = 2  # the loop's own instructions take cycles of the units that multiply
_UNHIDDEN = 0.25  # of the time in which a vector arrives, so much is not hidden behind multiplications
_LINE_CYCLES = 3.4  # until a line of a row is there that comes from the second-level cache, asked for ahead
_LINES_IN_FLIGHT = 16  # as many as the first-level cache waits for at once
_TILE_CYCLES = 100.0  # between two tiles: the last sums arrive and are stored, loops end where they did not before
_MEMORY_BYTES_PER_CYCLE = 8.0  # and from behind it

_UNEVEN = 1.02  # what a core gets of the work, over its part of it, from where on other shares are looked for

_COLUMNS_OUTSIDE, _ROWS_OUTSIDE = "columns outside", "rows outside"


@dataclasses.dataclass(frozen=True)
class Tile:
    """A register tile: ``outer_rows`` times ``rows`` by ``blocks`` vectors of ``width`` elements each.

    More than one outer row is taken only where ``rows`` covers its whole (short) axis.
    """

    outer_rows: int
    rows: int
    blocks: int
    width: int


def schedule_contraction(schedule: Schedule, stages: Sequence[Tensor], tensor: Tensor, target: Target) -> None:
    """Schedule the contraction ``tensor`` and the stages before and after it."""
    contraction = as_contraction(tensor)
    assert contraction is not None
    final = epilogue_of(tensor, stages, schedule.kernel.outputs)
    operand = computed_operand(contraction)
    for stage in stages:
        if is_reduction(stage) and stage is not tensor:
            schedule_reductions(schedule, [stage], target)
        elif stage is not tensor and stage is not final and (operand is None or stage is not operand.source):
            schedule_elementwise(schedule, stage, target)
    if decide_streamed(schedule, contraction, target):
        if operand is not None:
            schedule_elementwise(schedule, operand.source, target)
        StreamedProduct(schedule, contraction, target).apply(final)
    else:
        result, loops = result_and_loops(schedule, tensor, final)
        _Tiling(schedule, contraction, result, target).apply(loops)


@dataclasses.dataclass(frozen=True)
class Arrival:
    """Cycles that a vector of the vector operand takes to arrive: for the first tile of a column, and for the rest;
    and cycles per step that a row of the other operand takes."""

    first: float
    again: float
    row: float = 0.0


def tile_cycles(rows: int, vectors: int, vector_cycles: float, row_cycles: float = 0.0) -> float:
    """Cycles of a register tile per step of the reduction: two FMAs and two loads issue per cycle, an FMA takes four,
    every vector of the vector operand takes ``vector_cycles`` to arrive, and every row ``row_cycles``."""
    loads, arriving = rows + vectors, vector_cycles * vectors
    waiting = _UNHIDDEN * arriving + row_cycles * (rows + max(0, rows - _LINES_IN_FLIGHT))
    return max(rows * vectors / 2, loads / 2, arriving, 4.0) + 0.1 * loads + waiting


def cost(space: tuple[int, int, int], tile: tuple[int, int, int], arrival: Arrival, depth: int) -> float:
    """Cycles per step of a reduction of ``depth`` of all tiles that cover ``space``; both are (outer rows, rows,
    vectors)."""
    pieces = [_pieces(extent, size) for extent, size in zip(space, tile, strict=True)]
    total = 0.0
    for (outer, n_outer), (rows, n_rows), (vectors, n_vectors) in itertools.product(*pieces):
        cycles = tile_cycles(outer * rows, vectors, arrival.again, arrival.row) + _TILE_CYCLES / depth
        total += n_outer * n_rows * n_vectors * cycles
    for vectors, n_vectors in pieces[2]:
        height = tile[0] * tile[1]
        later = tile_cycles(height, vectors, arrival.again)
        total += n_vectors * (tile_cycles(height, vectors, arrival.first) - later)
    return total


def column_arrival(depth: int, vectors: int, all_vectors: int, target: Target, row: float = 0.0) -> Arrival:
    """How a column of tiles, ``vectors`` wide, gets a vector operand of ``depth`` steps and ``all_vectors``; ``row``
    is how it gets its rows."""
    near = depth * vectors * target.vector_bytes <= target.l1_bytes * 2 // 3
    again = 0.5 if near else target.vector_bytes / _L2_BYTES_PER_CYCLE
    whole = depth * all_vectors * target.vector_bytes
    return Arrival(again if whole <= target.l2_bytes else target.vector_bytes / _MEMORY_BYTES_PER_CYCLE, again, row)


def row_cycles(size: int, steps_per_line: int, target: Target) -> float:
    """Cycles per step that a row takes to arrive of an operand of ``size`` bytes, a line of which serves so many
    steps."""
    return 0.0 if size <= target.l1_bytes else _LINE_CYCLES / steps_per_line


def _stays_near(depth: int, vectors: int, target: Target) -> bool:
    """Whether the vector operand of a column of tiles, ``vectors`` wide, stays in the first-level cache."""
    return depth * vectors * target.vector_bytes <= target.l1_bytes // 2


def _pieces(extent: int, size: int) -> list[tuple[int, int]]:
    whole, rest = divmod(extent, size)
    return [(size, whole)] * bool(whole) + [(rest, 1)] * bool(rest)


def choose_tile(
    space: tuple[int, int, int],
    registers: int,
    allowed: Sequence[int],
    arrival: Callable[[int], Arrival],
    depth: int,
) -> tuple[int, int, int]:
    """Outer rows, rows and vectors of the cheapest register tile that fits; ``allowed`` are the numbers of vectors.

    ``arrival`` tells how long a vector of the vector operand takes to arrive, given the tile's vectors; ``depth`` is
    the number of the reduction's steps.
    """
    best = (float("inf"), (1, 1, allowed[0]))
    for width in allowed:
        for tile in row_tiles(space, width, registers):
            tails = sum(extent % size != 0 for extent, size in zip(space, tile, strict=True))
            cycles = cost(space, tile, arrival(width), depth) * (1 + 0.02 * tails)
            best = min(best, (cycles, tile))
    return best[1]


def row_tiles(space: tuple[int, int, int], width: int, registers: int) -> Iterator[tuple[int, int, int]]:
    """The tiles of ``width`` vectors whose accumulators, vectors and one broadcast fit the registers."""
    outer_extent, extent, _ = space
    most = max(1, (registers - width - 1) // width)
    for rows in range(1, min(extent, most) + 1):
        yield 1, rows, width
    for outer in range(2, min(outer_extent, most // extent) + 1):
        yield outer, extent, width


def _source_bytes(load: Load) -> int:
    """The size of the tensor that is loaded from; symbolic extents count as one."""
    size: int = math.prod(constant(n) or 1 for n in load.source.shape) * load.dtype.bytes
    return size


class _Tiling(Deciding):
    """The steps of tiling one contraction, with what they share."""

    def __init__(self, schedule: Schedule, contraction: Contraction, result: Tensor, target: Target) -> None:
        super().__init__(schedule, contraction.tensor)
        self.contraction = contraction
        self.result = result
        self.target = target
        self.roles = choose_roles(contraction)
        self.lanes = target.lanes(max(contraction.tensor.dtype.bytes, 4))
        self.is_plain = is_plain_product(contraction, self.roles)
        self.tile = self._choose_tile()
        self.operand = computed_operand(contraction)
        self.rows_per_block = self._decide_rows_per_block()
        self.panels = self._decide_panels() if self.is_plain else 0

    def apply(self, loops: Sequence[LoopRef]) -> None:
        """Tile the final stage, place the accumulators in it, and share the outer loops out to the threads."""
        packed = self._pack_vector_operand()
        outer, inner = self._split(loops)
        if packed is None and outer.columns and outer.rows and not self.is_plain:
            order = self._decide("order", _COLUMNS_OUTSIDE, [_COLUMNS_OUTSIDE, _ROWS_OUTSIDE])
            outer = dataclasses.replace(outer, rows_outside=order == _ROWS_OUTSIDE)
        self.schedule.reorder(*outer.in_order(), *inner)
        step = self._place_accumulators(outer, packed)
        for loop in inner[:-1]:
            self.schedule.unroll(loop)
        self.schedule.vectorize(inner[-1])
        tiles = {row: self.schedule.extent(row) for row in outer.rows}
        where = self._parallelize(outer, packed)
        if step is not None and where is not None:
            self._prefetch_panels(step, outer, tiles, where)

    def _choose_tile(self) -> Tile:
        axes = self.contraction.tensor.axes
        last = constant(axes[-1].extent)
        panel = panel_of(self.contraction)
        if self.roles.block is not None:
            width = min(last or self.lanes, 2 * self.lanes)
            per_block = -(-width // self.lanes)
            blocks = constant(axes[self.roles.block].extent) or 1
            outer, rows, vectors = self._choose(
                blocks * per_block, [b * per_block for b in range(1, min(blocks, 4) + 1)]
            )
            return Tile(outer, rows, vectors // per_block, width)
        if panel is not None:
            panels = -(-(last or panel) // panel)
            vectors = max(1, panel // self.lanes)
            return Tile(*self._choose(panels * vectors, [vectors])[:2], 1, panel)
        if last is not None and last < self.lanes:
            return Tile(*self._choose(1, [1])[:2], 1, last)
        vectors = -(-(last or 2 * self.lanes) // self.lanes)
        if self._extent(self.roles.row) == 1:
            widths = [w for w in (1, 2, 4, 8, _WIDEST_ROW, 24) if w <= vectors]
            return Tile(1, 1, 1, self._decide("row_vectors", min(vectors, _WIDEST_ROW), widths) * self.lanes)
        outer, rows, width = self._choose(vectors, range(1, min(vectors, 4) + 1), self._vectors_of_many_rows())
        return Tile(outer, rows, 1, width * self.lanes)

    def _vectors_of_many_rows(self) -> int | None:
        """Vectors across the tiles of a plain product whose matrix is copied into panels for many rows; None where the
        costs of tiles tell."""
        rows, depth = self._extent(self.roles.row), self._depth()
        collide = are_rows_in_one_set(depth * self.contraction.step_bytes(self.contraction.other))
        is_deep = depth >= 2 * _MANY_STEPS
        some = rows >= _SOME_ROWS or (collide and rows >= _ROWS_WORTH_PACKING)
        most = 4 if rows >= _MANY_ROWS else 3 if some and is_deep else 0
        if not self.is_plain or depth < _MANY_STEPS or not most:
            return None
        tensor = self.contraction.tensor
        width = wide_panel(constant(tensor.axes[-1].extent) or 1, self.target, tensor.dtype, most)
        return width // self.lanes if width > panel_width(self.target, tensor.dtype) else None

    def _choose(self, vectors: int, allowed: Sequence[int], preferred: int | None = None) -> tuple[int, int, int]:
        """The tile of one of the ``allowed`` numbers of vectors, of the ``preferred`` one if there is one."""
        row = self._row_cycles()

        def arrival(width: int) -> Arrival:
            return column_arrival(self._depth(), width, vectors, self.target, row)

        space = (self._extent(self.roles.outer_row), self._extent(self.roles.row), vectors)
        best = allowed if preferred is None else [preferred]
        tile = choose_tile(space, self._registers(), best, arrival, self._depth())
        possible = [t for width in allowed for t in row_tiles(space, width, self._registers())]
        return self._decide("tile", tile, possible)

    def _registers(self) -> int:
        """Registers for a tile: half of them where rows are not broadcast but vectors themselves (a depthwise
        convolution), which stay in registers from one tap to the next."""
        vector = self.contraction.tensor.axes[-1]
        return self.target.vector_registers // (2 if depends_on(self.contraction.other, vector) else 1)

    def _row_cycles(self) -> float:
        """Cycles per step for a row that jumps from line to line of memory, as that of a convolution's channels."""
        other, axes = self.contraction.other, self.contraction.step_axes
        if len(axes) < 2 or axes[0] not in other.indices or stride_of(other, axes[-1]) != 1:
            return 0.0
        steps_per_line = CACHE_LINE_BYTES // other.dtype.bytes
        if len(axes) > 2:  # neighbouring taps read the same lines
            steps_per_line *= constant(axes[-2].extent) or 1
        return row_cycles(self._row_bytes(), steps_per_line, self.target)

    def _row_bytes(self) -> int:
        """The size of the operand that rows are read from."""
        return _source_bytes(self.contraction.other)

    def _vector_source(self, packed: Tensor | None) -> Tensor:
        source = packed or self.contraction.vector.source
        assert isinstance(source, Tensor)
        return source

    def _extent(self, axis: int | None) -> int:
        if axis is None:
            return 1
        return constant(self.contraction.tensor.axes[axis].extent) or _SYMBOLIC_ROWS

    def _depth(self) -> int:
        """Steps of the reduction; symbolic extents count as one."""
        return math.prod(constant(a.extent) or 1 for a in self.contraction.step_axes)

    def _split(self, loops: Sequence[LoopRef]) -> tuple[_Outer, list[LoopRef]]:
        """Split the tiled loops; returns the loops outside of the tile by role, and those of the tile."""
        roles, tile, schedule = self.roles, self.tile, self.schedule
        outer = _Outer([loops[d] for d in roles.batch], [], [loops[d] for d in roles.columns], [])
        inner: list[LoopRef] = []
        if roles.block is not None:
            blocks, block = schedule.split(loops[roles.block], tile.blocks)
            outer.columns.append(blocks)
            inner.append(block)
        for d in roles.rows:
            tiles = loops[d]
            if d == roles.outer_row and tile.outer_rows > 1:
                tiles, row = schedule.split(tiles, tile.outer_rows)
                inner.append(row)
            if d == roles.outer_row and self.rows_per_block:
                row_blocks, tiles = schedule.split(tiles, -(-self.rows_per_block // tile.outer_rows))
                outer.row_blocks.append(row_blocks)
            outer.rows.append(tiles)
        if roles.row is not None:
            tiles, row = schedule.split(loops[roles.row], tile.rows)
            per_block = 0 if self.panels else self._decide_row_block(schedule.extent(tiles))
            if per_block:
                row_blocks, tiles = schedule.split(tiles, per_block, tail="shrink")
                outer.row_blocks.append(row_blocks)
            outer.rows.append(tiles)
            inner.append(row)
        vector = loops[roles.vector]
        if schedule.extent(vector) != tile.width:
            panels, vector = schedule.split(vector, tile.width)
            if self.panels and schedule.extent(panels) != self.panels:
                blocks, panels = schedule.split(panels, self.panels, tail="shrink")
                outer.column_blocks.append(blocks)
            outer.columns.append(panels)
        self._share_columns(outer)
        return dataclasses.replace(outer, rows_outside=self.panels > 0), [*inner, vector]

    def _share_columns(self, outer: _Outer) -> None:
        """Give each core columns of its own, for all blocks of rows, where these make no equal shares and columns do.

        An operand that is computed for a block at a time is not: it would be computed once for each core.
        """
        cores = self.target.cores
        columns = constant(self.schedule.extent(outer.columns[0])) if outer.columns else None
        if not self.rows_per_block or self.operand is not None or cores == 1 or columns is None or columns % cores:
            return
        if self._decide("column_shares", cores if self._are_blocks_uneven(columns) else 1, [1, cores]) > 1:
            share, outer.columns[0] = self.schedule.split(outer.columns[0], columns // cores)
            outer.column_blocks.append(share)

    def _are_blocks_uneven(self, columns: int) -> bool:
        """Whether some core gets much more than its part of the blocks of rows, with ``columns`` in each."""
        rows, tile, cores = self._extent(self.roles.outer_row), self.tile.outer_rows, self.target.cores
        if math.prod(self._extent(d) for d in self.roles.batch) % cores == 0:
            return False
        block = -(-self.rows_per_block // tile) * tile
        return longest_share(rows, block, columns, 1, cores) * cores > _UNEVEN * rows * columns

    def _decide_panels(self) -> int:
        """Panels of columns in a block that all tiles of rows pass through, rows outside; 0 for no such blocks."""
        panel, rows = self.tile.blocks * self.tile.width, self._extent(self.roles.row)
        count = -(-self._extent(self.roles.vector) // panel)
        chosen = panels_per_block(self.contraction, rows, self.tile.rows, panel, self.target)
        is_deep = -(-rows // self.tile.rows) >= _MANY_TILES and self._depth() >= _MANY_STEPS
        is_wide = panel_of(self.contraction) is not None and panel > _NARROW * self.lanes
        possible = [n for n in (2, 4, 6, 8, 12, 16, 24, 32) if n < count]
        possible += [count] * (count > 1)
        return self._decide("panels_per_block", chosen if is_wide or is_deep else 0, [0, *possible])

    def _row_tiles_per_block(self) -> int | None:
        """Row tiles whose operand fits half of the second-level cache; None when all of them do, and for a plain
        product: reading its rows again for every panel was measured to cost less than the panels for every block."""
        tensor = self.contraction.tensor
        assert self.roles.row is not None
        rows = constant(tensor.axes[self.roles.row].extent)
        fitting = (
            self.target.l2_bytes // 2 // max(1, self._depth() * self.contraction.step_bytes(self.contraction.other))
        )
        most = max(1, fitting // self.tile.rows)
        if self.is_plain or self.roles.rows or (rows is not None and rows <= most * self.tile.rows):
            return None
        if rows is None:
            # Blocks are shared out to threads, and with few rows the last of them would have a short one.
            return most if self.target.cores == 1 and most * self.tile.rows <= _SYMBOLIC_ROWS else None
        tiles = -(-rows // self.tile.rows)
        return -(-tiles // -(-tiles // most))  # blocks of equal size

    def _decide_row_block(self, tiles: Dim) -> int:
        """Row tiles in a block; 0 for no blocks."""
        many = constant(tiles)
        possible = [n for n in (4, 8, 16, 32, 64) if many is not None and n < many and not self.roles.rows]
        return self._decide("row_tiles_per_block", self._row_tiles_per_block() or 0, [0, *possible])

    def _pack_vector_operand(self) -> Tensor | None:
        """Copy a vector operand into panels where reading it in place would be slow; returns the copy.

        That is when it is not contiguous along the vector axis, or when many rows of tiles would walk down its
        columns, each step a whole row further in memory.
        """
        load, last = self.contraction.vector, self.contraction.tensor.axes[-1]
        if panel_of(self.contraction) is not None or self.contraction.dot is not None:
            return None
        dimension = [d for d, i in enumerate(load.indices) if i == last]
        if not dimension or constant(last.extent) == 1:
            return None
        stride = stride_of(load, last)
        in_place = self.roles.block is not None or self.roles.outer_row is not None or not self._is_tall()
        if not self._decide("pack", stride != 1 or not in_place, [False, True] if stride == 1 else [True]):
            return None
        access = access_number(self.contraction.tensor, load)
        return self.schedule.cache_read(load.source, self.result, {dimension[0]: self.tile.width}, access)

    def _is_tall(self) -> bool:
        """Whether a column has so many rows that a copy of its operand pays, and its operand is one plain matrix."""
        axes = self.contraction.step_axes
        return len(axes) == 1 and self._extent(self.roles.row) >= _ROWS_WORTH_PACKING

    def _place_accumulators(self, outer: _Outer, packed: Tensor | None) -> LoopRef | None:
        """Compute the accumulators in the innermost of the outer loops; returns the reduction's loop in which the next
        panel is to be asked for, if it is."""
        attach = outer.in_order()[-1] if outer.in_order() else None
        schedule, rank = self.schedule, self.result.rank
        extents = [self.result.shape[d] for d in (self.roles.row, self.roles.vector) if d is not None]
        symbolic = any(constant(e) is None for e in extents)
        if attach is None:
            loops = schedule[self.result].loops
            schedule.set_scope(self.result, Scope.REGISTER)
        else:
            loops = schedule.compute_at(self.result, attach, Scope.REGISTER, overcompute=symbolic)
        depth = len(self.contraction.step_axes)
        spatial, reduced, dots = loops[:rank], loops[rank : rank + depth], loops[rank + depth :]
        # Rows outside of blocks: a broadcast element is then dead after one block of FMAs, not after the whole tile.
        roles = (self.roles.outer_row, self.roles.row, self.roles.block)
        tiled = [spatial[d] for d in roles if d is not None]
        for loop in tiled:
            schedule.unroll(loop)
        schedule.vectorize(spatial[-1])
        rest = [x for x in spatial[:-1] if x not in tiled]
        steps = self._split_steps(outer, reduced, asks=packed is None)
        reduced = steps.outer
        schedule.reorder(*rest, *reduced, *steps.unrolled, *tiled, spatial[-1], *dots)
        for loop in dots:
            schedule.dot(loop)
        distance = self._decide("prefetch", self._prefetch_distance(), [0, 2, 4, 8, 16, 32]) if reduced else 0
        if distance:
            schedule.prefetch(self._vector_source(packed), reduced[-1], max(1, distance // steps.count))
        if reduced and self._decide("prefetch_rows", self._are_rows_far(), [False, True]):
            schedule.prefetch(self.contraction.other.source, reduced[0], 1)
        return steps.asking

    def _split_steps(self, outer: _Outer, reduced: Sequence[LoopRef], asks: bool) -> _Steps:
        """Split the reduction's last loop into the steps that are unrolled. Where ``asks`` is set it reads panels that
        lie in memory, which it may ask for ahead; those that it packs itself are read elsewhere."""
        count = self._decide_steps_per_request(outer) if reduced and asks else 0
        asking = reduced[-1] if count else None
        if asking is not None and len(reduced) > 1 and count == self.schedule.extent(asking):
            asking, count = reduced[-2], 0
        count = count or self._decide_steps_unrolled(reduced)
        if count == 1:
            return _Steps(tuple(reduced), [], 1, asking)
        *before, last = reduced
        step, inner = self.schedule.split(last, count)
        self.schedule.unroll(inner)
        return _Steps((*before, step), [inner], count, step if asking is last else asking)

    def _prefetch_distance(self) -> int:
        """Steps of the reduction between asking for a vector and using it; 0 when it is not asked for."""
        if _stays_near(self._depth(), self.tile.blocks * -(-self.tile.width // self.lanes), self.target):
            return 0
        step_bytes = self.tile.blocks * self.tile.width * self.contraction.step_bytes(self.contraction.vector)
        if (
            self.tile.rows * self.tile.outer_rows <= _ROWS_FORESEEN
            and _source_bytes(self.contraction.vector) <= self.target.l3_bytes
        ):
            return 0
        return min(_PREFETCH_STEPS, max(2, _PREFETCH_BYTES // step_bytes))

    def _are_rows_far(self) -> bool:
        """Whether each step of the reduction's first loop reads rows in another place of an operand that the
        first-level cache does not hold: the hardware foresees no jumps."""
        if self.rows_per_block and self.operand is not None:
            return False
        first, *rest = self.contraction.step_axes
        return first in self.contraction.other.indices and bool(rest) and self._row_bytes() > self.target.l1_bytes

    def _decide_steps_per_request(self, outer: _Outer) -> int:
        """Steps of the reduction in which a tile asks once for its share of the next column's panel; 0 when it never
        asks, as where many rows wait for the panel anyway.

        They are all of the reduction's last loop, where it has several and no request becomes a burst, or unrolled.
        """
        lines = self._lines_per_step()
        if lines is None or outer.rows_outside or outer.row_blocks or not outer.columns:
            return 0
        roles, tile = self.roles, self.tile
        tiles = -(-self._extent(roles.row) // tile.rows) * -(-self._extent(roles.outer_row) // tile.outer_rows)
        *several, last = (constant(a.extent) or 1 for a in self.contraction.step_axes)
        possible = list(dict.fromkeys([last] * bool(several) + [n for n in (4, 2, 1) if last % n == 0]))
        fitting = [n for n in possible if n * lines <= tiles * (LINES_PER_RUN if several and n == last else 1)] or [1]
        most = MOST_TILES_ASKING * (2 if several else 1)  # requests before runs of a loop cost less
        return self._decide("steps_per_request", fitting[0] if 1 < tiles <= most else 0, [0, *possible])

    def _decide_steps_unrolled(self, reduced: Sequence[LoopRef]) -> int:
        """Steps of the reduction's innermost loop that are unrolled, where that is within other loops of it."""
        extent = constant(self.schedule.extent(reduced[-1])) if len(reduced) > 1 else None
        possible = [n for n in (1, 2, 4, 8) if extent is not None and extent % n == 0]
        if STEPS_UNROLLED not in possible:
            return 1
        return self._decide("steps_unrolled", STEPS_UNROLLED, possible)

    def _lines_per_step(self) -> float | None:
        """Cache lines that a step of the reduction takes of a column's panel; None where that is not one piece of
        memory."""
        load, block = self.contraction.vector, self.roles.block
        blocked = block is not None and load.indices[0] == self.contraction.tensor.axes[block]
        if panel_of(self.contraction) is None and not blocked:
            return None
        width = self.tile.blocks * self.tile.width
        return width * self.contraction.step_bytes(load) / CACHE_LINE_BYTES

    def _prefetch_panels(self, step: LoopRef, outer: _Outer, tiles: Mapping[LoopRef, Dim], where: LoopRef) -> None:
        """Let all tiles of a column ask for a share of the next column's panel: memory then has the time of a whole
        column to send it, not that of its first tile.

        ``where`` is the loop that is shared out, in which loops of ``outer`` may have been fused.
        """
        column = next(reversed(self._unfused(outer.columns)), where)
        kept = self._unfused(tiles)
        fused = [constant(extent) for tile, extent in tiles.items() if tile not in kept]
        self.schedule.prefetch(self._vector_source(None), step, math.prod(n or 1 for n in fused), around=column)

    def _parallelize(self, outer: _Outer, packed: Tensor | None) -> LoopRef | None:
        """Share the outer loops out to the threads; a packed operand is made per batch or column, or before all."""
        schedule, tensor = self.schedule, self.contraction.tensor
        shared = outer.in_order()
        inside = packed is not None and (outer.batch or (outer.columns and not outer.row_blocks and not self.panels))
        if inside:
            shared = outer.batch or outer.columns
        elif self.panels:
            shared = [*outer.batch, *outer.column_blocks, *outer.rows]
        if self.rows_per_block and self.operand is not None:
            shared = [*outer.batch, *outer.row_blocks]
        where = shared[-1] if shared else None
        if shared and is_large([a.extent for a in (*tensor.axes, *tensor.reduce_axes)]):
            where = parallelize(schedule, shared, self.target)
        self._place_operand(outer, where)
        if packed is None:
            return where
        if inside and where is not None:
            self._place_packed(packed, where)
        else:
            schedule_elementwise(schedule, packed, self.target)
        return where

    def _unfused(self, loops: Iterable[LoopRef]) -> list[LoopRef]:
        """Those of ``loops`` that are still there."""
        there = loop_names(self.schedule.tree)
        return [loop for loop in loops if loop.name in there]

    def _decide_rows_per_block(self) -> int:
        rows = self._extent(self.roles.outer_row)
        possible = [r for r in (1, 2, 4, 8, 16, 32) if r < rows]
        return self._decide("rows_per_block", rows_per_block(self.contraction, self.roles, self.target), [0, *possible])

    def _place_operand(self, outer: _Outer, where: LoopRef | None) -> None:
        """Compute an operand of the kernel's own for each block of rows, or whole and before all.

        ``where`` is the loop that is shared out, in which that over blocks of rows may have been fused.
        """
        if self.operand is None:
            return
        if self.rows_per_block:
            block = next(iter(self._unfused(outer.row_blocks)), where)
            assert block is not None
            self.schedule.vectorize(self.schedule.compute_at(self.operand.source, block)[-1])
        else:
            schedule_elementwise(self.schedule, self.operand.source, self.target)

    def _place_packed(self, packed: Tensor, where: LoopRef) -> None:
        loops = self.schedule.compute_at(packed, where)
        self.schedule.vectorize(loops[-1])
        if len(loops) > 1:
            self.schedule.prefetch(self._vector_source(None), loops[-2], _PREFETCH_STEPS)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The reduction's loops outside of the ``count`` steps that are unrolled, the loop over these, and that of
    ``outer`` in which a tile asks for the next column's panel, if it does."""

    outer: tuple[LoopRef, ...]
    unrolled: list[LoopRef]
    count: int
    asking: LoopRef | None


@dataclasses.dataclass(frozen=True)
class _Outer:
    """The loops outside of the register tile, by role."""

    batch: list[LoopRef]
    row_blocks: list[LoopRef]
    columns: list[LoopRef]
    rows: list[LoopRef]
    column_blocks: list[LoopRef] = dataclasses.field(default_factory=list)
    rows_outside: bool = False

    def in_order(self) -> list[LoopRef]:
        """Row blocks outside of columns outside of rows: the panel of a column is used by all rows of a block. With
        rows outside of columns, the rows of a tile are used by all columns."""
        if self.rows_outside:
            return [*self.batch, *self.column_blocks, *self.row_blocks, *self.rows, *self.columns]
        return [*self.batch, *self.column_blocks, *self.row_blocks, *self.columns, *self.rows]
