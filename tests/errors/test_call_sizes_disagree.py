"""Arrays that tell different values of a size."""

from __future__ import annotations

from mistakes import array, fails, product

import polycomp as pc
from polycomp.errors import InputError


def test_call_sizes_disagree() -> None:
    n = pc.size("n")
    multiply = pc.build(product(2, 5, n), threads=1)
    message = "wrong inputs for 'kernel': n is 3 by dimension 1 of 'a', but 4 by dimension 0 of 'b'"
    with fails(InputError, message):
        multiply(array(2, 3), array(4, 5))
