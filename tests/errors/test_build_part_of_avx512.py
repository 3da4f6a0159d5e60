"""A part of AVX-512 without the rest, which no CPU has."""

from __future__ import annotations

from mistakes import doubled, fails

import polycomp as pc
from polycomp.errors import TargetError


def test_build_part_of_avx512() -> None:
    message = (
        "avx512f is used only together with all of avx512bw+avx512cd+avx512dq+avx512f+avx512vl; add what is missing"
    )
    with fails(TargetError, message):
        pc.build(doubled(), target="x86_64-linux-gnu,features=avx2+avx512f")
