"""An architecture of GPUs that code is not made for."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import TargetError


def test_compile_for_an_old_gpu() -> None:
    message = (
        "the CUDA architecture 'sm_70' is unknown or too old; there are sm_80, sm_86, sm_87, sm_89, sm_90, sm_100, "
        "sm_103, sm_110, sm_120, sm_121, and some of them with an 'a'"
    )
    with fails(TargetError, message):
        pc.compile(model(), target="cuda,arch=sm_70+sm_80")
