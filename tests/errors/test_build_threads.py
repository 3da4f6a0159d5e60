"""A negative number of threads."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import BuildError


def test_build_threads() -> None:
    message = "build: threads is a positive int, or 0 for all cores, not -1"
    with fails(BuildError, message):
        pc.build(doubled(), threads=-1)
