"""More arrays than a function takes."""

from __future__ import annotations

from mistakes import array, doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_too_many() -> None:
    double = pc.build(doubled(), threads=1)
    message = "kernel takes 1 arrays (x), but 2 were given"
    with fails(InputError, message):
        double(array(10), array(10))
