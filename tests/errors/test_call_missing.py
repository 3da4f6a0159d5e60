"""A function called without an array."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_missing() -> None:
    double = pc.build(doubled(), threads=1)
    message = "wrong inputs for 'kernel': input x: float32[10] is missing"
    with fails(InputError, message):
        double()
