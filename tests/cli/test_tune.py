"""``polycomp tune`` on a small model, and the compilation that uses its log."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

Polycomp = Any


def test_tune_then_compile(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    tuned = polycomp("tune", model, "--trials", "6", "--threads", "1", "--jobs", "1", "--db", log)
    assert tuned.status == 0, tuned.err
    assert "library's own" in tuned.out
    assert re.search(r"^6 trials in .*, [\d.]+ per second$", tuned.out, re.MULTILINE)
    assert re.search(r"the spaces of \d+ kernels? have about [\d.e+]+ points", tuned.out)
    assert f"the log is {log}" in tuned.out
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["status"] for r in records] == ["ok"] * 6
    kernels = {r["symbol"] for r in records}
    compiled = polycomp("compile", model, "-o", tmp_path / "small.pcm", "--threads", "1", "--db", log)
    assert f"({len(kernels)} of them tuned)" in compiled.out
    more = polycomp("tune", model, "--trials", "2", "--threads", "1", "--jobs", "1", "--db", log, "--resume")
    assert "the log has 6 measurements of these kernels" in more.err
    known = [(r["workload"], json.dumps(r["decisions"])) for r in map(json.loads, log.read_text().splitlines())]
    assert len(known) == len(set(known)) == 8


def test_a_seconds_budget_of_nothing(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tuned = polycomp("tune", model, "--seconds", "0.000001", "--threads", "1", "--jobs", "1", "--db", tmp_path / "log")
    assert tuned.status == 0
    assert "0 trials" in tuned.out
    assert not (tmp_path / "log").exists()
