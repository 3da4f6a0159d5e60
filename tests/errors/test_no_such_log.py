"""A tuning log that does not exist."""

from __future__ import annotations

import pathlib

from mistakes import fails

import polycomp as pc
from polycomp.errors import TuningLogError


def test_no_such_log(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    message = f"there is no tuning log {log}; 'polycomp tune MODEL --db {log}' makes one"
    with fails(TuningLogError, message):
        pc.compile("model.onnx", db=log)
