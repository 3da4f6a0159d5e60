"""A module file that is not there."""

from __future__ import annotations

import pathlib

from mistakes import fails

import polycomp as pc
from polycomp.errors import ModuleFileError


def test_file_not_there(tmp_path: pathlib.Path) -> None:
    message = f"cannot read module file '{tmp_path}/none.pcm': No such file or directory"
    with fails(ModuleFileError, message):
        pc.load(tmp_path / "none.pcm")
