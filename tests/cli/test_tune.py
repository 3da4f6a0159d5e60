"""``polycomp tune`` on a small model, and the compilation that uses its log."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

Polycomp = Any


def trials(log: pathlib.Path) -> list[dict[str, Any]]:
    """The records of kernels; whether there are some of ways depends on how fast these are."""
    return [record for record in map(json.loads, log.read_text().splitlines()) if not record["way"]]


def test_tune_then_compile(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    tuned = polycomp("tune", model, "--trials", "6", "--threads", "1", "--jobs", "1", "--db", log)
    assert tuned.status == 0, tuned.err
    assert "library's own" in tuned.out
    assert re.search(r"^6 trials in .*, [\d.]+ per second$", tuned.out, re.MULTILINE)
    assert re.search(r"the spaces of \d+ kernels? have about [\d.e+]+ points", tuned.out)
    assert f"the log is {log}" in tuned.out
    assert [r["status"] for r in trials(log)] == ["ok"] * 6
    compiled = polycomp("compile", model, "-o", tmp_path / "small.pcm", "--threads", "1", "--db", log)
    assert re.search(r"\(1 of them tuned(, 1 problem solved in a measured way)?\)", compiled.out)
    more = polycomp("tune", model, "--trials", "2", "--threads", "1", "--jobs", "1", "--db", log, "--resume")
    assert "the log has 6 measurements of these kernels" in more.err
    known = [(r["workload"], json.dumps(r["decisions"])) for r in trials(log)]
    assert len(known) == len(set(known)) == 8


def test_a_seconds_budget_of_nothing(polycomp: Polycomp, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tuned = polycomp("tune", model, "--seconds", "0.000001", "--threads", "1", "--jobs", "1", "--db", tmp_path / "log")
    assert tuned.status == 0
    assert "0 trials" in tuned.out
    assert not (tmp_path / "log").exists()
