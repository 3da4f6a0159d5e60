"""A model loaded as a module."""

from __future__ import annotations

from mistakes import fails, model

import polycomp as pc
from polycomp.errors import ModuleFileError


def test_file_is_a_model() -> None:
    message = "the module is not a polycomp module file; if it is a model, compile it first"
    with fails(ModuleFileError, message):
        pc.load(model().SerializeToString())
