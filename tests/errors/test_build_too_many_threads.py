"""More threads in a block than a GPU has."""

from __future__ import annotations

from mistakes import fails, table

import polycomp as pc
from polycomp.errors import BuildError


def test_build_too_many_threads() -> None:
    s = table(64, 32)
    s.bind("i", "thread")
    s.bind("j", "thread")
    message = (
        "build: binding 'i', 'j' to threads makes blocks of 2048, and a GPU has 1024 at most; split these loops and "
        "bind shorter ones"
    )
    with fails(BuildError, message):
        pc.build(s, target="cuda")
