"""A negative number of threads."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_build_threads() -> None:
    message = "threads is -1; give a positive int, or 0 for all cores"
    with fails(InputError, message):
        pc.build(doubled(), threads=-1)
