"""The loops of an input."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import UnknownTensorError


def test_tensor_input() -> None:
    s = neighbours()
    message = "tensor 'x' is an input: it has no loops; computed are 'y', 'z'"
    with refuses(s, UnknownTensorError, message):
        s.loops_of("x")
