"""A setting that targets do not have."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import TargetError


def test_build_target_setting() -> None:
    message = (
        "setting 'speed=fast' is unknown; use 'cpu' for this machine, 'cuda' for a GPU, or a triple such as "
        "'x86_64-linux-gnu,features=avx2+fma' or 'aarch64-linux-gnu,cpu=cortex-a72'"
    )
    with fails(TargetError, message):
        pc.build(doubled(), target="x86_64-linux-gnu,speed=fast")
