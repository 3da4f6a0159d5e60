"""A number of threads for a GPU."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_build_threads_for_a_gpu() -> None:
    message = (
        "threads is 2, but that is for CPUs: how many threads a GPU runs is part of each kernel's schedule; leave it "
        "out"
    )
    with fails(InputError, message):
        pc.build(doubled(), target="cuda", threads=2)
