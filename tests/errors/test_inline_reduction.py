"""A reduction inlined."""

from __future__ import annotations

from mistakes import refuses, row_sums

from polycomp.errors import PlacementError


def test_inline_reduction() -> None:
    s = row_sums()
    message = (
        "compute_inline of 'total': it is a reduction, which would be repeated by every reader; use compute_at instead"
    )
    with refuses(s, PlacementError, message):
        s.compute_inline("total")
