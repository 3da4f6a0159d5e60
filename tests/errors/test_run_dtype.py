"""A module run with an array of another type."""

from __future__ import annotations

from mistakes import array, compiled, fails

from polycomp.errors import InputError


def test_run_dtype() -> None:
    message = "wrong inputs for 'small': 'x' is float64, expected float32"
    with fails(InputError, message):
        compiled().run({"x": array(2, 8, dtype="float64")})
