"""A module file with a byte changed."""

from __future__ import annotations

import pathlib

from mistakes import fails, module_file

import polycomp as pc
from polycomp.errors import ModuleFileError


def test_file_damaged(tmp_path: pathlib.Path) -> None:
    content = module_file(tmp_path).read_bytes()
    message = "the module is damaged: its content does not match its checksum"
    with fails(ModuleFileError, message):
        pc.load(content[:300] + bytes([content[300] ^ 255]) + content[301:])
