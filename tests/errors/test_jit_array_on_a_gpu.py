"""An array on a GPU given to a function that is compiled for the CPU."""

from __future__ import annotations

from mistakes import OnGpu, fails

import polycomp as pc
from polycomp.errors import ArgumentError


def test_jit_array_on_a_gpu() -> None:
    @pc.jit
    def double(x):  # type: ignore[no-untyped-def]
        return x * 2

    message = (
        "argument 'x', a OnGpu, is on a GPU, but 'double' is compiled for the CPU; compile it with "
        '@jit(target="cuda"), or pass a copy on the host'
    )
    with fails(ArgumentError, message):
        double(OnGpu())
