"""An array by a name that the function does not have."""

from __future__ import annotations

from mistakes import array, doubled, fails

import polycomp as pc
from polycomp.errors import InputError


def test_call_unknown_name() -> None:
    double = pc.build(doubled(), threads=1)
    message = "wrong inputs for 'kernel': no input is called 'bias'; the inputs are x"
    with fails(InputError, message):
        double(array(10), bias=array(10))
