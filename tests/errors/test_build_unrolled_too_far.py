"""Loops unrolled in one another, which would make half a million copies."""

from __future__ import annotations

from mistakes import fails, product

import polycomp as pc
from polycomp.errors import BuildError


def test_build_unrolled_too_far() -> None:
    s = product(80, 80, 80)
    for name in ("i", "j", "k"):
        s.unroll(name)
    message = (
        "build: unrolling or vectorising 'i', 'j', 'k' makes 512000 copies of c.update, which would take very long to "
        "compile (at most 65536 are made); split these loops and mark short inner ones instead"
    )
    with fails(BuildError, message):
        pc.build(s)
