"""Everything wrong with a run is said at once."""

from __future__ import annotations

from mistakes import array, compiled, fails

from polycomp.errors import InputError


def test_run_several() -> None:
    message = "wrong inputs for 'small': input x: float32[2, 8] is missing; no input is called 'y'; the inputs are x"
    with fails(InputError, message):
        compiled().run({"y": array(2, 8)})
