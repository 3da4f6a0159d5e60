"""How much of an attention a thread block takes at a time: as much as its threads have registers, and it has shared
memory, for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from polycomp.schedules.library.analysis import constant, is_reduction
from polycomp.schedules.library.gpu.binding import WARP
from polycomp.schedules.library.gpu.contraction import on_tensor_cores
from polycomp.schedules.library.gpu.products import LARGEST_TILE, Product
from polycomp.schedules.library.gpu.scores import Attention, are_steps_last
from polycomp.target import Target
from polycomp.te import Dim, Tensor

ROWS = (16, 32, 64)
"""Of a block, which are chosen from."""

LANE_ROWS, LANE_COLUMNS = 8, 4
"""Of a warp that multiplies on tensor cores."""

_FEWEST_THREADS, _MOST_THREADS = 128, 256
_THREADS_PER_ROW = 4
_MOST_SUMS = 64  # of a thread
_MOST_OWN_ROWS = 32  # of a warp on tensor cores
_BANK_ROW = 16  # bytes by which rows in shared memory are longer than their elements, to be in other banks
_TURNED_BANK_ROW = 32  # of which a warp on tensor cores reads the same columns of several
_STAGES = (2, 3, 4)
_LENGTHS = ((256, 64, 32), (256, 64, 16), (256, 32, 16), (128, 64, 16), (128, 32, 16), (64, 32, 16))
"""Columns that a block sums at once, bytes of a key and keys for whose values it copies at once, the best first."""

_MANY = 3  # blocks for each multiprocessor
_MANY_BYTES = 48 << 10  # of a block of which there are many
_SEVERAL_BYTES = 72 << 10  # of a large one
_MOST_BYTES = 96 << 10


@dataclasses.dataclass(frozen=True)
class Part:
    """A block's ``rows`` and ``columns`` of a product at a time, of which a thread, or a warp with ``tensor`` cores,
    has ``own_rows`` and ``own_columns``, so many ``neighbours`` of these side by side.

    A step of the sum is ``step`` long, and ``stages`` of them are in shared memory.
    """

    rows: int
    columns: int
    own_rows: int
    own_columns: int
    step: int
    neighbours: tuple[int, int] = (1, 1)
    tensor: bool = False
    stages: int = 2

    @property
    def threads(self) -> int:
        parts = self.rows * self.columns // (self.own_rows * self.own_columns)
        return parts * WARP if self.tensor else parts

    @property
    def cycles(self) -> int:
        """Of a multiprocessor for a step of one: it multiplies 128 pairs per cycle, and loads 32 words."""
        warps = -(-self.threads // WARP)
        products = self.own_rows * self.own_columns * -(-warps // 4)
        return max(products, warps * (self.own_rows + self.own_columns))


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a block of so many ``threads`` has: ``rows``, and a part of each product at a time."""

    rows: int
    threads: int
    first: Part
    second: Part


def best_tile(attention: Attention, target: Target) -> Tile | None:
    """The largest tile of which there are many for each multiprocessor, else the smallest; None when none fits."""
    for rows in reversed(ROWS[1:]):
        tile = tile_of(attention, target, rows)
        many = _blocks(attention, rows) >= _MANY * target.cores
        if tile is not None and many and shared_bytes(attention, tile) <= _SEVERAL_BYTES:
            return tile
    return tile_of(attention, target, ROWS[0])


def tile_of(attention: Attention, target: Target, rows: int) -> Tile | None:
    """The best tile of so many rows, or None when it does not fit shared memory."""
    many = _blocks(attention, rows) >= _MANY * target.cores
    depth = constant(attention.first.depth) or 0
    for limit in (_MANY_BYTES, _SEVERAL_BYTES, _MOST_BYTES) if many else (_MOST_BYTES,):
        for columns, key_bytes, keys in _LENGTHS:
            step = key_bytes // attention.first.left.dtype.bytes
            if depth % step == 0:
                tile = _tile(attention, target, rows, columns, step, keys)
                if shared_bytes(attention, tile) <= min(limit, target.shared_bytes):
                    return _deepened(attention, tile, min(limit, target.shared_bytes))
    return None


def shared_bytes(attention: Attention, tile: Tile) -> int:
    """Of a block."""
    held = (attention.scores, attention.weights)
    stored = sum(tile.rows * (attention.keys + padding(t)) * t.dtype.bytes for t in held)
    sums = sum(tile.threads * t.dtype.bytes for t in attention.stages if is_reduction(t))
    first, second = attention.first, attention.second
    copied = _slots(first.right, tile.first.columns, first, tile.first)
    copied += _slots(first.left, tile.rows, first, tile.first)
    return stored + sums + copied + _slots(second.right, tile.second.columns, second, tile.second)


def padding(tensor: Tensor) -> int:
    """Elements by which rows in shared memory are longer."""
    return _BANK_ROW // tensor.dtype.bytes


def operand_padding(operand: Tensor, product: Product, part: Part) -> int:
    """The same of what is copied of an operand."""
    if are_steps_last(product, operand):
        return padding(operand)
    if not part.tensor:  # all threads read from one row at a time
        return 0
    return max(_BANK_ROW, _TURNED_BANK_ROW if operand.dtype.bytes == 4 else 0) // operand.dtype.bytes


def _slots(operand: Tensor, count: int, product: Product, part: Part) -> int:
    """What all stages take of an operand, of which there are ``count`` rows, or columns."""
    rows, length = (count, part.step) if are_steps_last(product, operand) else (part.step, count)
    stages = min(part.stages, _steps(product, part))
    return stages * rows * (length + operand_padding(operand, product, part)) * operand.dtype.bytes


def _steps(product: Product, part: Part) -> int:
    depth = constant(product.depth)
    assert depth is not None  # as scores have it
    return depth // part.step


def _deepened(attention: Attention, tile: Tile, limit: int) -> Tile:
    """``tile`` with as many stages as fit, those of the first product first."""
    for name, product in (("first", attention.first), ("second", attention.second)):
        for stages in _STAGES:
            part = dataclasses.replace(getattr(tile, name), stages=stages)
            deeper = dataclasses.replace(tile, **{name: part})
            if stages <= _steps(product, part) and shared_bytes(attention, deeper) <= limit:
                tile = deeper
    return tile


def _blocks(attention: Attention, rows: int) -> int:
    product = attention.second
    batch, all_rows = ([product.result.axes[d].extent for d in role] for role in (product.batch, product.rows))
    return _count(batch) * -(-_count(all_rows) // rows)


def _count(dims: Sequence[Dim]) -> int:
    """How many elements; many when that is not known."""
    return math.prod(constant(n) or LARGEST_TILE for n in dims)


def _tile(attention: Attention, target: Target, rows: int, columns: int, step: int, keys: int) -> Tile:
    """``columns`` are those of the scores that are summed at once, at most."""
    threads = min(_MOST_THREADS, max(_FEWEST_THREADS, rows * _THREADS_PER_ROW))
    width = _count([attention.second.result.axes[d].extent for d in attention.second.columns])
    first = _Parts(attention.first, target, rows, threads, step).best(attention.keys, columns)
    return Tile(rows, threads, first, _Parts(attention.second, target, rows, threads, keys).best(width, LARGEST_TILE))


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Those of a product that are chosen from."""

    product: Product
    target: Target
    rows: int
    threads: int
    step: int

    def best(self, columns: int, most: int) -> Part:
        """At most ``most`` of so many columns."""
        if on_tensor_cores(self.product, self.target):
            return self._of_warps(columns, most)
        found = self._of_threads(columns, most)
        busy = [p for p in found if p.threads >= self.threads] or found
        return min(busy, key=lambda p: (p.cycles * -(-columns // p.columns), p.columns))

    def _of_threads(self, columns: int, most: int) -> list[Part]:
        last = [are_steps_last(self.product, operand) for operand in (self.product.left, self.product.right)]
        rows, group = (1 if x else 4 for x in last)  # side by side where they are so in memory
        found: list[Part] = []
        for own_rows in (n for n in (1, 2, 4, 8, 16) if n >= rows and self.rows % n == 0):
            for across in (n for n in (8, 16, 32, 64) if n * self.rows <= self.threads * own_rows):
                needed = -(-columns // (across * group)) * group
                own = min(_MOST_SUMS // own_rows, most // across, needed) // group * group
                if own:
                    found.append(Part(self.rows, across * own, own_rows, own, self.step, (rows, group)))
        return found

    def _of_warps(self, columns: int, most: int) -> Part:
        """Warps side by side, each with whole tiles of instructions."""
        own_rows, unit = min(self.rows, _MOST_OWN_ROWS), 2 * LANE_COLUMNS
        across = self.threads // WARP * own_rows // self.rows
        while (across - 1) * unit >= columns:
            across //= 2
        own = min(_MOST_SUMS * WARP // own_rows, most // across, -(-columns // across) + unit - 1) // unit * unit
        return Part(self.rows, across * own, own_rows, own, self.step, tensor=True)
