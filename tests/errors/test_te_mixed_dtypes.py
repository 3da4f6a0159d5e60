"""An int32 element plus a float32 element."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import DTypeError


def test_te_mixed_dtypes() -> None:
    x = pc.placeholder((8,), name="x")
    n = pc.placeholder((8,), "int32", "n")
    message = "add of float32 and int32: cast one operand to the other's element type first"
    with fails(DTypeError, message):
        pc.compute((8,), lambda i: x[i] + n[i], "y")
