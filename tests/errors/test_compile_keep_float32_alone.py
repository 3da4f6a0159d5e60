"""What stays in float32, where everything does."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import InputError


def test_compile_keep_float32_alone() -> None:
    message = "keep_float32 is for what another precision leaves alone; give that, or leave it out"
    with fails(InputError, message):
        pc.compile(model(), keep_float32=["Relu"])
