"""A module loaded for a negative number of threads, and one for a text."""

from __future__ import annotations

import pathlib

from mistakes import fails, module_file

import polycomp as pc
from polycomp.errors import InputError


def test_run_threads(tmp_path: pathlib.Path) -> None:
    message = "threads is -2; give a positive int, or 0 for all cores"
    with fails(InputError, message):
        pc.load(module_file(tmp_path), threads=-2)


def test_run_threads_in_quotes(tmp_path: pathlib.Path) -> None:
    with fails(InputError, "threads is '2'; give a positive int, or 0 for all cores"):
        pc.load(module_file(tmp_path), threads="2")  # type: ignore[arg-type]
