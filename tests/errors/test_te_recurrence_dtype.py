"""A recurrence whose definition has another type."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import DTypeError


def test_te_recurrence_dtype() -> None:
    n = pc.placeholder((8,), "int32", "n")
    message = "tensor 'u' is float32, but its definition is int32"
    with fails(DTypeError, message):
        pc.recurrence((4, 8), lambda u, t, i: n[i], name="u")
