"""A module loaded for a negative number of threads."""

from __future__ import annotations

import pathlib

from mistakes import fails, module_file

import polycomp as pc
from polycomp.errors import InputError


def test_run_threads(tmp_path: pathlib.Path) -> None:
    message = "threads is -2; give a positive number, or 0 for all cores"
    with fails(InputError, message):
        pc.load(module_file(tmp_path), threads=-2)
