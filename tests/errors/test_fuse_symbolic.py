"""A fuse with an inner loop of symbolic extent."""

from __future__ import annotations

from mistakes import refuses, table

import polycomp as pc
from polycomp.errors import ExtentError


def test_fuse_symbolic() -> None:
    s = table(4, pc.size("n"))
    message = "fuse of 'i' with 'j' needs a constant inner extent, not n: dividing by a symbolic size is not affine"
    with refuses(s, ExtentError, message):
        s.fuse("i", "j")
