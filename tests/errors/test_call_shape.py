"""An array of another size."""

from __future__ import annotations

from mistakes import array, doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_shape() -> None:
    double = pc.build(doubled(), threads=1)
    message = "wrong inputs for 'kernel': dimension 0 of 'x' is 11, expected 10"
    with fails(InputError, message):
        double(array(11))
