"""A function for another machine called on this one."""

from __future__ import annotations

from mistakes import array, doubled, fails

import polycomp as pc
from polycomp.errors import ModuleFileError


def test_call_for_another_machine() -> None:
    double = pc.build(doubled(), target="aarch64-linux-gnu")
    message = "module 'kernel' was compiled for aarch64, but this machine is x86_64"
    with fails(ModuleFileError, message):
        double(array(10))
