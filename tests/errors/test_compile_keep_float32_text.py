"""What stays in float32, as one text."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import InputError


def test_compile_keep_float32_text() -> None:
    message = "keep_float32 is 'Relu'; give a sequence of names of operators or nodes"
    with fails(InputError, message):
        pc.compile(model(), precision="float16", keep_float32="Relu")
