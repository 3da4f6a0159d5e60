"""What each axis of a contraction's output does in its schedule."""

from __future__ import annotations

import dataclasses

from polycomp.expr import Binary, Load
from polycomp.schedules.library.analysis import Contraction, constant, depends_on
from polycomp.te import Axis


@dataclasses.dataclass(frozen=True)
class Roles:
    """What each output axis does: ``row`` and ``block`` are tiled in registers, ``vector`` is the last axis."""

    vector: int
    row: int | None
    outer_row: int | None  # the row axis before `row`
    block: int | None
    batch: tuple[int, ...]  # both operands, or none, depend on them
    columns: tuple[int, ...]  # further axes of the vector operand
    rows: tuple[int, ...]  # further axes of the other operand, outer_row included


def choose_roles(contraction: Contraction) -> Roles:
    """Which output axes are tiled: the last one row axis, and the last one column axis before the vector axis."""
    axes = contraction.tensor.axes
    vector = len(axes) - 1
    rows = [d for d, a in enumerate(axes[:-1]) if _belongs(a, contraction.other, contraction.vector)]
    blocks = [d for d, a in enumerate(axes[:-1]) if _belongs(a, contraction.vector, contraction.other)]
    row = rows[-1] if rows else None
    outer_row = rows[-2] if len(rows) > 1 else None
    block = blocks[-1] if blocks else None
    columns = tuple(d for d in blocks if d != block)
    batch = tuple(d for d in range(vector) if d not in (*rows, *blocks))
    return Roles(vector, row, outer_row, block, batch, columns, tuple(d for d in rows if d != row))


def _belongs(axis: Axis, operand: Load, not_to: Load) -> bool:
    return depends_on(operand, axis) and not depends_on(not_to, axis) and constant(axis.extent) != 1


def panel_of(contraction: Contraction) -> int | None:
    """The panel width of a packed vector operand (read at ``n // width`` and ``n % width``), else None."""
    last = contraction.tensor.axes[-1]
    for index in contraction.vector.indices:
        if isinstance(index, Binary) and index.op == "floormod" and index.left == last:
            return constant(index.right)
    return None
