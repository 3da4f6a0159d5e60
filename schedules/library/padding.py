"""Blocks of rows, so that what they read stays in cache; and operands that a kernel computes first, such as an image
with zeros around it: whole, or for blocks of rows.

A block that stays in cache is written and read there, at the price of computing the rows that two blocks share twice.
"""

from __future__ import annotations

import bisect
import math

from polycomp.expr import Expr, Load, free_vars, linear_in
from polycomp.schedules.library.analysis import Contraction, constant, depends_on, is_reduction
from polycomp.schedules.library.roles import Roles
from polycomp.target import Target
from polycomp.te import Axis, Tensor

_WORTHWHILE = 0.75
"""The least part of a block's rows that only it reads; below it, blocks are made for the next level of cache."""


def computed_operand(contraction: Contraction) -> Load | None:
    """The operand that the same kernel computes element by element, or None."""
    for load in (contraction.other, contraction.vector):
        if isinstance(load.source, Tensor) and load.source.body is not None and not is_reduction(load.source):
            return load
    return None


def rows_per_block(contraction: Contraction, roles: Roles, target: Target) -> int:
    """Outer rows of the output in a block: what they read stays in cache meanwhile; 0 where there are no blocks.

    A computed operand is made for a block at a time. A dense contraction reads it for every column, so that it should
    stay in the second-level cache; without columns (a depthwise convolution) the first level is enough.
    """
    load = computed_operand(contraction)
    if roles.outer_row is None:
        return 0
    if load is None:
        return _rows_read_in_place(contraction, roles, target)
    if not depends_on(load, contraction.tensor.axes[roles.outer_row]):  # weights that are put in order first
        return 0
    block = _Block(contraction, roles, load)
    extent = constant(block.row.extent)
    if extent is None or block.bytes(extent) is None:
        return 0
    dense = roles.block is not None or bool(roles.columns)
    budgets = [target.l2_bytes // 2] if dense else [target.l1_bytes * 2 // 3, target.l2_bytes // 4]
    rows = next((r for budget in budgets if (r := block.most_rows(budget)) and block.own_part(r) >= _WORTHWHILE), 0)
    if not rows or (dense and rows >= extent):
        return 0
    blocks = -(-extent // rows)
    if dense:  # the threads share out blocks
        blocks = -(-blocks // target.cores) * target.cores
    return -(-extent // blocks)


def _rows_read_in_place(contraction: Contraction, roles: Roles, target: Target) -> int:
    """Outer rows, in blocks of equal size, that read a quarter of the second-level cache; 0 where all of them do."""
    assert roles.outer_row is not None
    block = _Block(contraction, roles, contraction.other)
    extent = constant(block.row.extent)
    if extent is None or block.bytes(extent) is None or not (roles.block is not None or roles.columns):
        return 0
    rows = block.most_rows(target.l2_bytes // 4)
    return -(-extent // -(-extent // rows)) if 0 < rows < extent else 0


class _Block:
    """What a block of rows reads of the operand at ``load``."""

    def __init__(self, contraction: Contraction, roles: Roles, load: Load) -> None:
        self.load = load
        assert roles.outer_row is not None
        axes = contraction.tensor.axes
        self.row: Axis = axes[roles.outer_row]
        self.batch = [axes[d] for d in roles.batch]

    def bytes(self, rows: int) -> int | None:
        """The size of what ``rows`` rows of one iteration of the batch read; None when it is not known."""
        sizes = [self._size(i, n, rows) for i, n in zip(self.load.indices, self.load.source.shape, strict=True)]
        known = [s for s in sizes if s is not None]
        return math.prod(known) * self.load.dtype.bytes if len(known) == len(sizes) else None

    def _size(self, index: Expr, extent: int | Expr, rows: int) -> int | None:
        if depends_on(index, self.row):
            return self._span(index, rows)
        return 1 if any(depends_on(index, axis) for axis in self.batch) else constant(extent)

    def _span(self, index: Expr, rows: int) -> int | None:
        """Elements from the first to the last that ``index`` reaches."""
        total = 1
        for axis in free_vars(index):
            linear = linear_in(index, axis)
            extent = rows if axis == self.row else constant(axis.extent) if isinstance(axis, Axis) else None
            if linear is None or extent is None:
                return None
            total += abs(linear[0]) * (extent - 1)
        return total

    def most_rows(self, budget: int) -> int:
        """The most rows that fit; 0 when not one does."""
        possible = range(1, (constant(self.row.extent) or 0) + 1)
        return bisect.bisect_right(possible, budget, key=lambda rows: self.bytes(rows) or 0)

    def own_part(self, rows: int) -> float:
        """Which part of a block's rows of the operand no other block reads."""
        index = next(i for i in self.load.indices if depends_on(i, self.row))
        linear, span = linear_in(index, self.row), self._span(index, rows)
        return rows * abs(linear[0]) / span if linear is not None and span else 0.0
