"""A parallel loop, built for a GPU."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import BuildError


def test_build_parallel_for_a_gpu() -> None:
    s = doubled()
    s.parallel("i")
    with fails(BuildError, "build: loop 'i' is parallel, which is for CPUs; for a GPU use bind('i', \"block\")"):
        pc.build(s, target="cuda")
