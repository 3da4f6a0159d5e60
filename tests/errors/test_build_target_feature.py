"""A CPU feature that there is not."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import TargetError


def test_build_target_feature() -> None:
    message = (
        "the CPU feature 'avx9' is unknown; there are avx, avx2, avx512bf16, avx512bw, avx512cd, avx512dq, avx512f, "
        "avx512fp16, avx512vbmi, avx512vl, avx512vnni, avxvnni, bmi, bmi2, f16c, fma, lzcnt, movbe, popcnt, sse3, sse4.1, "
        "sse4.2, ssse3"
    )
    with fails(TargetError, message):
        pc.build(doubled(), target="x86_64-linux-gnu,features=avx2+avx9")
