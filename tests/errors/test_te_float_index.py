"""An index that is a float."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import DTypeError


def test_te_float_index() -> None:
    x = pc.placeholder((8,), name="x")
    message = "mul of int64 and 0.5: cast the int64 operand to a float type first"
    with fails(DTypeError, message):
        pc.compute((8,), lambda i: x[i * 0.5], "y")
