"""A target that there is not."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import TargetError


def test_build_target() -> None:
    message = (
        "target 'z80' is unknown; use 'cpu' for this machine, 'cuda' for a GPU, or a triple such as "
        "'x86_64-linux-gnu,features=avx2+fma' or 'aarch64-linux-gnu,cpu=cortex-a72'"
    )
    with fails(TargetError, message):
        pc.build(doubled(), target="z80")
