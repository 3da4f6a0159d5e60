"""A precision that there is not."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import InputError


def test_compile_precision() -> None:
    with fails(InputError, "precision is 'int8'; give one of float32, float16, bfloat16"):
        pc.compile(model(), precision="int8")
