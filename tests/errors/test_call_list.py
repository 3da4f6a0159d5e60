"""A list instead of an array."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_list() -> None:
    double = pc.build(doubled(), threads=1)
    message = "wrong inputs for 'kernel': 'x' is a list, not a numpy array"
    with fails(InputError, message):
        double([1.0, 2.0])
