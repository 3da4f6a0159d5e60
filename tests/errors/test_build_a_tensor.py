"""A tensor given to build."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import BuildError


def test_build_a_tensor() -> None:
    x = pc.placeholder((8,), name="x")
    y = pc.compute((8,), lambda i: x[i] * 2.0, "y")
    message = "build takes a Schedule, not the tensor 'y'; make one: pc.build(pc.Schedule(C))"
    with fails(BuildError, message):
        pc.build(y)
