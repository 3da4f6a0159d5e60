"""``/`` on integers."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import DTypeError


def test_te_integer_division() -> None:
    n = pc.placeholder((8,), "int32", "n")
    message = "/ of int32: use // for the floor of the quotient, or cast to a float type"
    with fails(DTypeError, message):
        pc.compute((8,), lambda i: n[i] / 2, "half")
