"""A vectorised loop of symbolic extent."""

from __future__ import annotations

from mistakes import doubled, refuses

import polycomp as pc
from polycomp.errors import ExtentError


def test_vectorize_symbolic() -> None:
    s = doubled(pc.size("n"))
    message = (
        "loop 'i' runs n times, which is not known while compiling; split it by a constant first, "
        "then mark the inner loop as vector"
    )
    with refuses(s, ExtentError, message):
        s.vectorize("i")
