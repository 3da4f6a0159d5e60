"""A tensor of another schedule with the same name."""

from __future__ import annotations

from mistakes import doubled, neighbours, refuses

from polycomp.errors import UnknownTensorError


def test_tensor_of_another_schedule() -> None:
    s = neighbours()
    other = doubled().tensor("y")
    message = "tensor 'y' is not the one of that name in this schedule; schedule['y'] is"
    with refuses(s, UnknownTensorError, message):
        s.loops_of(other)
