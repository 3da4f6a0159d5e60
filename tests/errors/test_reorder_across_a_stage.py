"""A reorder across a stage that is computed between the loops."""

from __future__ import annotations

from mistakes import refuses, shifted

from polycomp.errors import NestingError


def test_reorder_across_a_stage() -> None:
    s = shifted()
    s.compute_at("y", "i2")
    message = "reorder: storage stands between loop 'i2' and 'j2'; reorder before computing a stage there"
    with refuses(s, NestingError, message):
        s.reorder("j2", "i2")
