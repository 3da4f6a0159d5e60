"""An array given twice."""

from __future__ import annotations

from mistakes import array, doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_twice() -> None:
    double = pc.build(doubled(), threads=1)
    message = "kernel was given 'x' twice: by position and by name"
    with fails(InputError, message):
        double(array(10), x=array(10))
