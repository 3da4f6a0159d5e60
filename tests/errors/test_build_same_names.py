"""Two inputs of one name."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import BuildError


def test_build_same_names() -> None:
    a, b = pc.placeholder((8,), name="a"), pc.placeholder((8,), name="a")
    s = pc.Schedule(pc.compute((8,), lambda i: a[i] + b[i], "c"))
    message = "build: two arguments are named 'a'; give each tensor its own name"
    with fails(BuildError, message):
        pc.build(s)
