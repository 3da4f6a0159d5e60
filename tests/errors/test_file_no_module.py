"""A module file that is something else."""

from __future__ import annotations

from mistakes import fails

import polycomp as pc
from polycomp.errors import ModuleFileError


def test_file_no_module() -> None:
    message = "the module is not a polycomp module file; if it is a model, compile it first"
    with fails(ModuleFileError, message):
        pc.load(b"not a module at all, but long enough to have a header of its own" * 4)
