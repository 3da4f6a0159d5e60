"""A truncated module file."""

from __future__ import annotations

import pathlib

from mistakes import fails, module_file

import polycomp as pc
from polycomp.errors import ModuleFileError


def test_file_truncated(tmp_path: pathlib.Path) -> None:
    content = module_file(tmp_path).read_bytes()
    message = f"the module is truncated: it has {len(content) - 10} of {len(content)} bytes"
    with fails(ModuleFileError, message):
        pc.load(content[: len(content) - 10])
