"""Schedules for products of matrices on a GPU: tiles of blocks in shared memory, tiles of threads in registers.

A block computes a tile of the result in steps of the sum: its threads copy what a step needs of both operands to shared
memory, and each adds the products of a few rows and columns to sums in its registers (Volkov and Demmel, "Benchmarking
GPUs to Tune Dense Linear Algebra", SC 2008).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.dtypes import DType
from polycomp.expr import Cast, Load, Reduce, const, simplify, wrap
from polycomp.poly.tree import SWIZZLED_BYTES, Scope
from polycomp.schedules.library.analysis import constant, is_expensive, is_reduction, reads_tensor
from polycomp.schedules.library.deciding import Deciding
from polycomp.schedules.library.gpu.products import LARGEST_TILE, Product, turned, vector_width, with_inlined
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Axis, Dim, Tensor

_VECTOR = 4  # elements of 4 bytes that a thread loads at once
_BANK_ROW = 16  # bytes by which rows in shared memory are longer than their elements
_STEP_BYTES = (32, 64, 128)  # of a row of an operand that a step copies
_OWN_STEP_BYTES = 64
_STAGES = (1, 2, 3, 4)
_SHARED_BYTES = 24 << 10  # of a block's slots, where there are more than two
_WARP = 32
_LANE_ROWS, _LANE_COLUMNS = 8, 4  # of the lanes of a warp
_TENSOR_BYTES = 32  # of each operand's steps that an instruction of tensor cores takes
_WARP_ROWS = 16  # of each of a warpgroup's four warps
_SUMS_OF_TWO_BLOCKS = 64  # of a thread, at most, where two blocks of warpgroups fit a multiprocessor
_WARPGROUP_SHARED_BYTES = 112 << 10  # of a block's slots: two blocks fit a multiprocessor
_PATCH_STEPS = 4  # of bytes that a thread turns: a word of shared memory
_MOST_FILLED = 1.34  # elements of all tiles over those of the result, at most


@dataclasses.dataclass(frozen=True)
class BlockTile:
    """A block's ``rows`` and ``columns`` of the result, and how many of each a thread has, or a warp with ``tensor``
    cores. Four warps are a ``warpgroup`` that multiplies what lies in shared memory."""

    rows: int
    columns: int
    own_rows: int
    own_columns: int
    tensor: bool = False
    warpgroup: bool = False

    @property
    def threads(self) -> int:
        parts = self.rows * self.columns // (self.own_rows * self.own_columns)
        return parts * _WARP if self.tensor else parts

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} by {self.own_rows}x{self.own_columns}"


TILES = (
    BlockTile(128, 128, 8, 8),
    BlockTile(128, 64, 8, 4),
    BlockTile(64, 128, 4, 8),
    BlockTile(64, 64, 4, 4),
    BlockTile(64, 32, 4, 4),
    BlockTile(32, 64, 4, 4),
    BlockTile(32, 32, 4, 4),
    BlockTile(16, 64, 4, 4),
    BlockTile(64, 16, 4, 4),
)
"""Those that are chosen from, the best first: a large one reads each operand less often, from many small ones every
multiprocessor has some."""

TENSOR_TILES = (
    BlockTile(128, 128, 64, 32, tensor=True),
    BlockTile(128, 64, 32, 32, tensor=True),
    BlockTile(64, 128, 32, 32, tensor=True),
    BlockTile(64, 64, 32, 32, tensor=True),
    BlockTile(64, 32, 32, 16, tensor=True),
    BlockTile(32, 64, 16, 32, tensor=True),
    BlockTile(32, 32, 16, 16, tensor=True),
    BlockTile(16, 64, 16, 16, tensor=True),
)
"""The same for products on tensor cores."""

WARPGROUP_TILES = tuple(
    BlockTile(rows, columns, _WARP_ROWS, columns, tensor=True, warpgroup=True)
    for rows, columns in ((128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
)
"""The same for products of warpgroups."""


def schedule_product(
    schedule: Schedule, stages: Sequence[Tensor], product: Product, target: Target
) -> frozenset[Tensor]:
    """Schedule a product, its operands and what reads it at its own point; returns those of ``stages``, all that have
    not been scheduled yet, which are done."""
    tiling = _Tiling(schedule, stages, product, target)
    return tiling.apply()


def _epilogue(schedule: Schedule, stages: Sequence[Tensor], product: Product) -> Tensor | None:
    users = [t for t in stages if product.result in t.inputs()]
    if product.result in schedule.kernel.outputs or len(users) != 1 or is_reduction(users[0]):
        return None
    points = {tuple(x.indices) for x in reads_tensor(users[0], product.result)}
    fits = len(points) == 1 and set(next(iter(points))) == set(users[0].axes)
    return users[0] if fits else None


def on_tensor_cores(product: Product, target: Target) -> bool:
    """Whether an instruction takes the operands as they are: bytes of any signs, or halves of one kind; floats of 32
    bits only where ``target`` allows it to round them to 19 (tf32)."""
    kinds = {product.left.dtype, product.right.dtype}
    floats = {DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32} if target.tf32 else {DType.FLOAT16, DType.BFLOAT16}
    if not _are_widened(product):
        return False
    if product.tensor.dtype is DType.INT32:
        return kinds <= {DType.INT8, DType.UINT8}
    return len(kinds) == 1 and kinds <= floats and product.tensor.dtype is DType.FLOAT32


def _are_widened(product: Product) -> bool:
    """Whether the operands are multiplied as they are stored, or converted to the sum's type alone."""
    assert isinstance(product.tensor.body, Reduce)
    factors = (e.operand if isinstance(e, Cast) else e for e in product.tensor.body.operand.operands)
    return all(isinstance(e, Load) for e in factors)


def inline_operands(schedule: Schedule, stages: Sequence[Tensor], operands: Sequence[Tensor]) -> list[Tensor]:
    """Make what only ``operands`` read, and what is cheap (zeros around an image), where they are copied; returns it,
    some of ``stages``."""
    done: list[Tensor] = []
    for stage in reversed(stages):
        readers = [t for t in stages if stage in t.inputs()]
        of_rows = any(map(is_reduction, stage.inputs()))  # then it is made along with what it reads
        cheap = not (is_reduction(stage) or of_rows or stage.is_recurrence or is_expensive(stage))
        for_operands = readers and all(t in (*operands, *done) for t in readers)
        if for_operands and cheap and stage not in (*operands, *schedule.kernel.outputs):
            schedule.compute_inline(stage)
            done.append(stage)
    return done


class _Tiling(Deciding):
    def __init__(self, schedule: Schedule, stages: Sequence[Tensor], product: Product, target: Target) -> None:
        super().__init__(schedule, product.tensor)
        self.product, self.target, self.stages = product, target, stages
        self.final = _epilogue(schedule, stages, product)
        self.tile = self._choose_tile()
        element_bytes = product.left.dtype.bytes
        depth = wrap(product.depth)
        sizes = (SWIZZLED_BYTES,) if self.tile.warpgroup else _STEP_BYTES
        lengths = [n for n in (x // element_bytes for x in sizes) if simplify(depth % n) == const(0)]
        self.step = self._decide("step", min(lengths, key=lambda n: abs(n * element_bytes - _OWN_STEP_BYTES)), lengths)

    def apply(self) -> frozenset[Tensor]:
        product = self.product
        self.inlined = inline_operands(self.schedule, self.stages, (product.left, product.right))
        block = self._tile_result()
        step = self._accumulate(block)
        for operand in (product.left, product.right):
            self._copy(operand, step)
        schedule = self.schedule
        if constant(schedule.extent(step)) != 1:
            schedule.pipeline(step, self._decide("stages", self._own_stages(step), _STAGES))
        last = () if self.final is None else (self.final,)
        return frozenset((*self.inlined, product.left, product.right, product.tensor, product.result, *last))

    def _own_stages(self, step: LoopRef) -> int:
        """Deep enough to hide memory's latency, if blocks of a multiprocessor still fit its shared memory."""
        tile, product = self.tile, self.product
        slot = self.step * (tile.rows * product.left.dtype.bytes + tile.columns * product.right.dtype.bytes)
        count = constant(self.schedule.extent(step)) or max(_STAGES)
        most = _SHARED_BYTES
        if tile.warpgroup:  # a block with many sums has a multiprocessor's registers to itself
            alone = tile.rows * tile.columns // tile.threads > _SUMS_OF_TWO_BLOCKS
            most = self.target.shared_bytes if alone else _WARPGROUP_SHARED_BYTES
        return max(n for n in _STAGES if n <= count and (n <= 2 or n * slot <= most))

    def _choose_tile(self) -> BlockTile:
        """The largest tile of which there is one for every multiprocessor, or else that of which there are most."""
        rows, columns = self._extents()
        tiles = self._tiles()
        waste = {t: self._covered(t, rows, columns) for t in tiles}
        fitting = [t for t in tiles if waste[t] <= max(_MOST_FILLED * rows * columns, min(waste.values()))]
        enough = [t for t in fitting if self._blocks(t, rows, columns) >= self.target.cores]
        own = enough[0] if enough else max(fitting, key=lambda t: self._blocks(t, rows, columns))
        names = {str(t): t for t in tiles}
        return names[self._decide("tile", str(own), list(names))]

    def _tiles(self) -> tuple[BlockTile, ...]:
        if not on_tensor_cores(self.product, self.target):
            return TILES
        return (*filter(self._suits_warpgroups, WARPGROUP_TILES), *TENSOR_TILES)

    def _suits_warpgroups(self, tile: BlockTile) -> bool:
        """Whether a tile's operands can be swizzled: rows of what is stored have a multiple of 128 bytes."""
        product = self.product
        whole = simplify(wrap(product.depth) % (SWIZZLED_BYTES // product.left.dtype.bytes)) == const(0)
        return self.target.warpgroups and product.left.dtype.is_half and whole

    def _extents(self) -> tuple[int, int]:
        axes = self.product.result.axes
        rows, columns = ([axes[d].extent for d in role] for role in (self.product.rows, self.product.columns))
        return _product_of(rows), _product_of(columns)

    def _covered(self, tile: BlockTile, rows: int, columns: int) -> int:
        """Elements of all tiles."""
        return -(-rows // tile.rows) * tile.rows * (-(-columns // tile.columns)) * tile.columns

    def _blocks(self, tile: BlockTile, rows: int, columns: int) -> int:
        batch = _product_of([self.product.result.axes[d].extent for d in self.product.batch])
        return batch * -(-rows // tile.rows) * -(-columns // tile.columns)

    def _tile_result(self) -> LoopRef:
        """Bind the tiles of the result to blocks and their parts to threads; returns the loop of blocks."""
        schedule, product, tile = self.schedule, self.product, self.tile
        final = product.result
        loops: list[LoopRef] = list(schedule[final].loops)
        if self.final is not None:
            read = reads_tensor(self.final, product.result)[0]
            by_axis = dict(zip(self.final.axes, schedule[self.final].loops, strict=True))
            loops = [by_axis[i] for i in read.indices if isinstance(i, Axis)]
            schedule.compute_inline(product.result)
        batch, rows, columns = ([loops[d] for d in role] for role in (product.batch, product.rows, product.columns))
        schedule.reorder(*batch, *rows, *columns)
        row_block, row = schedule.split(self._fused(rows), tile.rows)
        column_block, column = schedule.split(self._fused(columns), tile.columns)
        row_threads, own_rows = self._split_rows(row)
        column_threads, own_columns = self._split_columns(column)
        threads = self._bind(row_threads, column_threads)
        schedule.reorder(*batch, row_block, column_block, *threads, *own_rows, *own_columns)
        for loop in (*batch, row_block, column_block):
            schedule.bind(loop, "block")
        for loop in (*own_rows, *own_columns[:-1]):
            schedule.unroll(loop)
        schedule.vectorize(own_columns[-1])
        return column_block

    def _fused(self, loops: Sequence[LoopRef]) -> LoopRef:
        first, *others = loops
        for other in others:
            first = self.schedule.fuse(first, other)
        return first

    def _bind(self, rows: Sequence[LoopRef], columns: Sequence[LoopRef]) -> list[LoopRef]:
        """The loops over threads in order: those of warps outside of those of lanes."""
        threads = [loop for pair in zip(rows, columns, strict=True) for loop in pair]
        for loop in threads:
            self.schedule.bind(loop, "thread")
        return threads

    def _split_rows(self, loop: LoopRef) -> tuple[list[LoopRef], list[LoopRef]]:
        """Loops over threads, and over a thread's own rows."""
        if not self.tile.tensor:
            return self._split_evenly(loop, self.tile.rows, self.tile.own_rows)
        warps, inside = self.schedule.split(loop, self.tile.own_rows)
        tiles, inside = self.schedule.split(inside, 2 * _LANE_ROWS)
        halves, lanes = self.schedule.split(inside, _LANE_ROWS)
        return [warps, lanes], [tiles, halves]

    def _split_columns(self, loop: LoopRef) -> tuple[list[LoopRef], list[LoopRef]]:
        """Loops over threads, and over a thread's own columns."""
        if not self.tile.tensor:
            return self._split_evenly(loop, self.tile.columns, self.tile.own_columns)
        warps, inside = self.schedule.split(loop, self.tile.own_columns)
        tiles, inside = self.schedule.split(inside, 2 * _LANE_COLUMNS)
        lanes, neighbours = self.schedule.split(inside, 2)
        return [warps, lanes], [tiles, neighbours]

    def _split_evenly(self, loop: LoopRef, block: int, own: int) -> tuple[list[LoopRef], list[LoopRef]]:
        """Threads, and a thread's own: groups of neighbours, so that threads side by side load side by side."""
        schedule = self.schedule
        group = min(own, _VECTOR)
        groups, within = schedule.split(loop, block // (own // group))
        threads, neighbours = schedule.split(within, group)
        return [threads], [groups, neighbours]

    def _accumulate(self, block: LoopRef) -> LoopRef:
        """Sum in registers; returns the loop over steps."""
        schedule = self.schedule
        *_, row, column, k = schedule.compute_at(self.product.tensor, block, Scope.REGISTER)
        steps, k = schedule.split(k, self.step)
        row_threads, own_rows = self._split_rows(row)
        column_threads, own_columns = self._split_columns(column)
        threads = self._bind(row_threads, column_threads)
        if self.tile.tensor:
            self._multiply_on_tensor_cores(steps, threads, k, own_rows, own_columns)
        else:
            schedule.reorder(steps, *threads, k, *own_rows, *own_columns)
            for loop in (k, *own_rows, *own_columns):
                schedule.unroll(loop)
        return steps

    def _multiply_on_tensor_cores(
        self,
        steps: LoopRef,
        threads: Sequence[LoopRef],
        k: LoopRef,
        rows: Sequence[LoopRef],
        columns: Sequence[LoopRef],
    ) -> None:
        schedule = self.schedule
        (row_tiles, halves), (column_tiles, neighbours) = rows, columns
        groups, k = schedule.split(k, _TENSOR_BYTES // self.product.left.dtype.bytes)
        schedule.reorder(steps, *threads, groups, row_tiles, column_tiles, k, halves, neighbours)
        if not self.tile.warpgroup:
            schedule.serial(groups)
        for loop in (row_tiles, column_tiles, *[groups] * self.tile.warpgroup):
            schedule.unroll(loop)
        schedule.tensorize(halves, neighbours, k)

    def _copy(self, operand: Tensor, step: LoopRef) -> None:
        """Copy a step's part of an operand to shared memory, all threads together."""
        schedule, made = self.schedule, with_inlined(operand, self.inlined)
        most = self.target.vector_bytes // operand.dtype.bytes
        width, across = vector_width(made, most), vector_width(turned(made), most)
        patched = schedule.cache_write(operand) if operand.dtype.bytes == 1 and across > width else None
        *_, outer, inner = schedule.compute_at(operand, step, Scope.SHARED)
        if self.tile.warpgroup:
            schedule.swizzle_storage(operand)
        elif self.tile.tensor or operand.axes[-1].extent == self.product.depth:  # else rows get in each other's banks
            schedule.pad_storage(operand, operand.rank - 1, _BANK_ROW // operand.dtype.bytes)
        if patched is not None:
            self._turn(patched, outer, inner, across)
            return
        loop, lanes = schedule.split(schedule.fuse(outer, inner), width)
        self._unroll_rounds(loop, [lanes])
        schedule.vectorize(lanes)

    def _turn(self, patch: Tensor, outer: LoopRef, inner: LoopRef, width: int) -> None:
        """Copy bytes that lie side by side along ``outer``, and are wanted so along ``inner``: each thread takes
        patches of some vectors of ``width``, which it turns in its registers."""
        schedule = self.schedule
        outer, across = schedule.split(outer, width)
        inner, steps = schedule.split(inner, _PATCH_STEPS)
        schedule.reorder(outer, inner, across, steps)
        thread = self._unroll_rounds(schedule.fuse(outer, inner), [across, steps])
        schedule.unroll(across)
        schedule.vectorize(steps)
        *_, across, steps = schedule.compute_at(patch, thread, Scope.REGISTER)
        schedule.reorder(steps, across)
        schedule.unroll(steps)
        schedule.vectorize(across)

    def _unroll_rounds(self, loop: LoopRef, within: Sequence[LoopRef]) -> LoopRef:
        """Share the iterations of ``loop`` out to all threads; returns the loop over what each of them has."""
        rounds, threads = self.schedule.split(loop, self.tile.threads)
        self.schedule.reorder(threads, rounds, *within)
        self.schedule.bind(threads, "thread")
        self.schedule.unroll(rounds)
        return rounds


def _product_of(dims: Sequence[Dim]) -> int:
    """How many elements; many when that is not known."""
    total = 1
    for dim in dims:
        total *= constant(dim) or LARGEST_TILE
    return total
