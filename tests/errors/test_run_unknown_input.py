"""A module run with an input that it does not have."""

from __future__ import annotations

from mistakes import array, compiled, fails

from polycomp.errors import InputError


def test_run_unknown_input() -> None:
    message = "wrong inputs for 'small': no input is called 'w'; the inputs are x"
    with fails(InputError, message):
        compiled().run({"x": array(2, 8), "w": array(8, 6)})
