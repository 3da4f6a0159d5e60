"""A tensor that there is not."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import UnknownTensorError


def test_tensor_unknown() -> None:
    s = neighbours()
    message = "there is no tensor 'w'; there are 'x', 'y', 'z'"
    with refuses(s, UnknownTensorError, message):
        s.compute_inline("w")
