"""A loop bound to the thread blocks of a GPU, built for the CPU."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import BuildError


def test_build_bound_for_a_cpu() -> None:
    s = doubled()
    s.bind("i", "block")
    message = (
        "build: loop 'i' is bound to the blocks of a GPU; build for one with target=\"cuda\", or take it back with "
        "serial('i')"
    )
    with fails(BuildError, message):
        pc.build(s)
