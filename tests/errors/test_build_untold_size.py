"""A size that no input tells."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import BuildError


def test_build_untold_size() -> None:
    n = pc.size("n")
    x = pc.placeholder((n * 2,), name="x")
    s = pc.Schedule(pc.compute((n * 2,), lambda i: x[i] * 2.0, "y"))
    message = "build: no input tells the size 'n'; make it a dimension of an input (the inputs are x[n*2])"
    with fails(BuildError, message):
        pc.build(s)
