"""Plain matrix products in blocks of columns whose panels stay in the second-level cache, rows outside.

The tiles of a row pass through all panels of a block, which lie one behind the other in memory: what is asked for
ahead at the end of a panel is the beginning of the next one, and the rows of the other operand stay in the first-level
cache meanwhile. (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the roles of
rows and columns exchanged.)
"""

from __future__ import annotations

import math

from polycomp.schedules.library.analysis import Contraction, constant, depends_on, stride_of
from polycomp.schedules.library.roles import Roles
from polycomp.schedules.library.sharing import longest_share
from polycomp.target import Target

_LEAST_PANELS = 2  # in a block: one panel alone needs no blocks
_ENTERING = 0.02  # of a panel's time, for which rows come anew for each block: no more was measured, so that it decides
# between shares that are about equal


def is_plain_product(contraction: Contraction, roles: Roles) -> bool:
    """Whether this is a product of two matrices (perhaps many such) whose first one is read along its rows."""
    tensor, other = contraction.tensor, contraction.other
    if roles.row is None or roles.rows or roles.block is not None or roles.columns or len(tensor.reduce_axes) != 1:
        return False
    (step,), row, last = tensor.reduce_axes, tensor.axes[roles.row], tensor.axes[roles.vector]
    if any(constant(axis.extent) is None for axis in (last, row, step)) or depends_on(other, last):
        return False
    return other.indices[-1] == step and stride_of(other, step) == 1


def panels_per_block(contraction: Contraction, rows: int, tile_rows: int, panel: int, target: Target) -> int:
    """Panels of ``panel`` columns in a block, whose operand fits half of the second-level cache, such that the cores
    get about equal shares of the blocks with ``rows`` in tiles of ``tile_rows`` each; 0 where too few fit, or where
    shares are about equal only without blocks."""
    columns, depth = constant(contraction.tensor.axes[-1].extent) or 1, constant(contraction.step_axes[0].extent) or 1
    panels = -(-columns // panel)
    fitting = target.l2_bytes // 2 // (panel * depth * contraction.vector.dtype.bytes)

    def cost(size: int) -> float:
        entering = 1 + _ENTERING * math.ceil(panels / size) / panels
        return longest_share(panels, size, rows, tile_rows, target.cores) * entering

    best = min(range(1, min(fitting, panels) + 1), key=cost, default=0)
    return best if best >= _LEAST_PANELS else 0
