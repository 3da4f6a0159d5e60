"""A name of what stays in float32 that nothing has."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import InputError


def test_compile_keep_float32_unknown() -> None:
    message = (
        "'multiplied', which is to stay in float32, is neither an operator nor a node of the model; did you mean "
        "'multiply'?"
    )
    with fails(InputError, message):
        pc.compile(model(), precision="float16", keep_float32=["multiplied"], cache=False)
