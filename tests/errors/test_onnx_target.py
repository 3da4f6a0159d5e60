"""A model compiled for a target that there is not."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import TargetError


def test_onnx_target() -> None:
    message = (
        "target 'riscv' is unknown; use 'cpu' for this machine, 'cuda' for a GPU, or a triple such as "
        "'x86_64-linux-gnu,features=avx2+fma' or 'aarch64-linux-gnu,cpu=cortex-a72'"
    )
    with fails(TargetError, message):
        pc.compile(model(), target="riscv", cache=False)
