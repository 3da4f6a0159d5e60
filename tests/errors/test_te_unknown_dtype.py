"""An element type that there is not."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import DTypeError


def test_te_unknown_dtype() -> None:
    message = (
        "element type 'float31' is not supported; use one of float16, bfloat16, float32, float64, int8, "
        "int16, int32, int64, uint8, uint16, uint32, uint64, bool"
    )
    with fails(DTypeError, message):
        pc.placeholder((8,), "float31", "x")
