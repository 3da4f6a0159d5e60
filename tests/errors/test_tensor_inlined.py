"""A tensor that has been inlined."""

from __future__ import annotations

from mistakes import neighbours, refuses

from polycomp.errors import UnknownTensorError


def test_tensor_inlined() -> None:
    s = neighbours()
    s.compute_inline("y")
    message = "tensor 'y' is not computed any more: compute_inline('y') removed it"
    with refuses(s, UnknownTensorError, message):
        s.compute_at("y", "i2")
