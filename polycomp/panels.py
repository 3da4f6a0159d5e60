"""How wide the panels are into which the right operand of a matrix product is packed.

Constants are packed by a pass, before there is a schedule, and matrices that are given at run time by the schedule.
"""

from __future__ import annotations

from polycomp.dtypes import DType
from polycomp.target import PAGE_BYTES, Target

NARROW = 2
"""Vectors across a panel that suits few rows as well as many."""

_MANY_REGISTERS = 32  # enough for tiles of 24 accumulators, four vectors wide
_MORE_LOADS = 1.04  # how much longer a tile two vectors wide takes, whose rows are loaded for fewer products


def panel_width(target: Target, dtype: DType = DType.FLOAT32) -> int:
    """Columns of one packed panel: two vector registers of elements (float16 is computed in float32)."""
    return NARROW * target.lanes(max(4, dtype.bytes))


def are_rows_in_one_set(row_bytes: int) -> bool:
    """Whether rows of so many bytes, one behind the other, all begin in the same set of the first-level cache: it has
    ways for the rows of a wide tile, but not for the many of a narrow one."""
    return row_bytes % PAGE_BYTES == 0


def wide_panel(columns: int, target: Target, dtype: DType = DType.FLOAT32, most: int = 4) -> int:
    """Columns of one packed panel of a matrix of so many, where there are many rows to multiply with it: up to
    ``most`` vectors if the target has the registers for it, as few as possible of them filled up with zeros."""
    narrow = panel_width(target, dtype)
    if target.vector_registers < _MANY_REGISTERS:
        return narrow
    widths = [narrow * vectors // NARROW for vectors in range(most, NARROW - 1, -1)]
    return min(widths, key=lambda w: -(-columns // w) * w * (_MORE_LOADS if w == narrow else 1.0))
