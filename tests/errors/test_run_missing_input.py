"""A module run without its input."""

from __future__ import annotations

from mistakes import compiled, fails

from polycomp.errors import InputError


def test_run_missing_input() -> None:
    message = "wrong inputs for 'small': input x: float32[2, 8] is missing"
    with fails(InputError, message):
        compiled().run({})
