"""Python's ``if`` on the value of an element."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc


def test_te_if_on_a_value() -> None:
    x = pc.placeholder((8,), name="x")
    message = (
        "the value of (x[i] > float32(0.0)) is not known while compiling; use select(condition, a, b) instead of if"
    )
    with fails(TypeError, message):
        pc.compute((8,), lambda i: x[i] if x[i] > 0.0 else 0.0, "y")
