"""A tensor in shared memory, built for the CPU."""

from __future__ import annotations

from mistakes import fails, neighbours

import polycomp as pc
from polycomp.errors import BuildError


def test_build_shared_for_a_cpu() -> None:
    s = neighbours()
    s.set_scope("y", "shared")
    message = (
        "build: 'y' is in shared memory, which a GPU has; build for one with target=\"cuda\", or use "
        "set_scope('y', \"workspace\")"
    )
    with fails(BuildError, message):
        pc.build(s)
