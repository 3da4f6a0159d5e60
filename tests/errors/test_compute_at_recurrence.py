"""A recurrence computed where only its last step is needed."""

from __future__ import annotations

from mistakes import last_step, refuses

from polycomp.errors import PlacementError


def test_compute_at_recurrence() -> None:
    s = last_step()
    message = "compute_at of 'u': it is defined by elements of itself along every dimension, so it is stored whole"
    with refuses(s, PlacementError, message):
        s.compute_at("u", "i2")
