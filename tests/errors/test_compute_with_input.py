"""An input in a loop."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import UnknownTensorError


def test_compute_with_input() -> None:
    s = doubled()
    message = "tensor 'x' is an input: it has no loops; computed are 'y'"
    with refuses(s, UnknownTensorError, message):
        s.compute_with("x", "i")
