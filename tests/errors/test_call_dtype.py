"""An array of another type."""

from __future__ import annotations

from mistakes import array, doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_dtype() -> None:
    double = pc.build(doubled(), threads=1)
    message = "wrong inputs for 'kernel': 'x' is float64, expected float32"
    with fails(InputError, message):
        double(array(10, dtype="float64"))
