"""A read beyond the end of a tensor."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_out_of_bounds() -> None:
    x = pc.placeholder((8,), name="x")
    y = pc.compute((8,), lambda i: x[i + 1] * 2.0, "y")
    message = (
        "the tensors are not well defined: y[i=7] reads x[8], outside of its shape [8]; guard such a "
        "read: select(condition, inside, outside)"
    )
    with fails(ExpressionError, message):
        pc.Schedule(y)
