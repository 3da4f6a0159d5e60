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
from polycomp.target import Target

_LEAST_PANELS = 2  # in a block: rows are read again for each block
_SHARES_PER_CORE = 32  # tiles of rows, counted once per block, that each core should get for an even share


def is_plain_product(contraction: Contraction, roles: Roles) -> bool:
    """Whether this is a product of two matrices (perhaps many such) whose first one is read along its rows."""
    tensor, other = contraction.tensor, contraction.other
    if roles.row is None or roles.rows or roles.block is not None or roles.columns or len(tensor.reduce_axes) != 1:
        return False
    (step,), row, last = tensor.reduce_axes, tensor.axes[roles.row], tensor.axes[roles.vector]
    if any(constant(axis.extent) is None for axis in (last, row, step)) or depends_on(other, last):
        return False
    return other.indices[-1] == step and stride_of(other, step) == 1


def panels_per_block(contraction: Contraction, row_tiles: int, panel: int, target: Target) -> int:
    """Panels of ``panel`` columns whose operand fits half of the second-level cache, in blocks of equal size for
    ``row_tiles`` tiles of rows each; 0 where too few fit."""
    columns, depth = constant(contraction.tensor.axes[-1].extent) or 1, constant(contraction.step_axes[0].extent) or 1
    panels = -(-columns // panel)
    fitting = target.l2_bytes // 2 // (panel * depth * contraction.vector.dtype.bytes)
    if min(fitting, panels) < _LEAST_PANELS:
        return 0
    blocks = math.ceil(panels / fitting)
    shares = _SHARES_PER_CORE * target.cores if target.cores > 1 else 1
    while blocks * row_tiles < shares and math.ceil(panels / (blocks + 1)) >= _LEAST_PANELS:
        blocks += 1
    return math.ceil(panels / blocks)
