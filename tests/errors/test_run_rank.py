"""A module run with an array of another rank."""

from __future__ import annotations

from mistakes import array, compiled, fails

from polycomp.errors import InputError


def test_run_rank() -> None:
    message = "wrong inputs for 'small': 'x' has 1 dimensions, expected x: float32[2, 8]"
    with fails(InputError, message):
        compiled().run({"x": array(16)})
