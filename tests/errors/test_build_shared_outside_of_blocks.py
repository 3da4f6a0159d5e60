"""Shared memory around the loops over blocks, of which each has its own."""

from __future__ import annotations

from mistakes import fails, neighbours

import polycomp as pc
from polycomp.errors import BuildError


def test_build_shared_outside_of_blocks() -> None:
    s = neighbours()
    s.set_scope("y", "shared")
    s.bind("i2", "block")
    message = "build: kernel 'kernel' has the shared buffer 'y' around loops over blocks, of which each has its own"
    with fails(BuildError, message):
        pc.build(s, target="cuda")
