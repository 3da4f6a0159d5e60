"""A number of threads to compile for that is a text."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import InputError


def test_compile_threads() -> None:
    with fails(InputError, "threads is '2'; give a positive int, or 0 for all cores"):
        pc.compile(model(), threads="2")  # type: ignore[arg-type]
