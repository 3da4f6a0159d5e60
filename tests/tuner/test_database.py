"""The log: what is written is read, by several processes at once, torn or damaged or merged."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import warnings

import pytest

from polycomp.decisions import Decisions
from polycomp.errors import TuningLogError
from polycomp.tuner.database import Database
from polycomp.tuner.record import Record

DECISIONS = Decisions().replace("t2.tile", (1, 6, 4)).replace("t2.pack", True).replace("t2.order", "rows outside")
RECORD = Record("k1", "product_k1", "target", DECISIONS, "ok", 1.5e-5, (1.5e-5, 1.6e-5), "", {"polycomp": "0"})
FAILED = dataclasses.replace(
    RECORD, workload="k2", status="crash", seconds=None, samples=(), error="it ended by SIGSEGV"
)

_WRITER = """
import dataclasses, pathlib, sys
from polycomp.errors import TuningLogError
from polycomp.tuner.database import Database
from polycomp.tuner.record import Record
line = sys.stdin.buffer.read()
for i in range(200):
    record = dataclasses.replace(Record.from_line(line), error=f"{sys.argv[2]}.{i}")
    Database(pathlib.Path(sys.argv[1])).append(record)
"""


@pytest.fixture
def database(tmp_path: pathlib.Path) -> Database:
    return Database(tmp_path / "new folder" / "tune.jsonl")


def test_what_is_written_is_read(database: Database) -> None:
    assert list(database.records()) == []
    database.append(RECORD)
    database.append(FAILED)
    assert list(database.records()) == [RECORD, FAILED]
    assert [g.symbol for g in database.glances()] == ["product_k1", "product_k1"]


def test_a_line_says_everything_by_name(database: Database) -> None:
    database.append(RECORD)
    assert json.loads(database.path.read_bytes()) == {
        "schema": 1,
        "workload": "k1",
        "symbol": "product_k1",
        "target": "target",
        "decisions": {"t2.order": "rows outside", "t2.pack": True, "t2.tile": [1, 6, 4]},
        "status": "ok",
        "seconds": 1.5e-5,
        "library": None,
        "in_model": False,
        "samples": [1.5e-5, 1.6e-5],
        "error": "",
        "versions": {"polycomp": "0"},
        "predicted": None,
        "own": False,
        "calls": None,
        "when": None,
        "way": False,
    }


def test_logs_of_before_and_of_later_are_read() -> None:
    fields = json.loads(RECORD.to_line())
    later = {**fields, "temperature": 40}
    before = {k: v for k, v in fields.items() if k not in ("predicted", "own", "calls", "when")}
    assert [Record.from_line(json.dumps(x).encode()) for x in (later, before)] == [RECORD, RECORD]


def test_a_torn_line_costs_only_itself(database: Database) -> None:
    database.append(RECORD)
    with database.path.open("ab") as file:
        file.write(FAILED.to_line()[:-20])
    with pytest.warns(UserWarning, match="1 lines of the tuning log .* were skipped"):
        assert list(database.records()) == [RECORD]
    database.append(FAILED)
    with pytest.warns(UserWarning, match="1 lines"):
        assert list(database.records()) == [RECORD, FAILED]


def test_a_torn_log_before_another_one(database: Database) -> None:
    database.append(RECORD)
    database.path.write_bytes(RECORD.to_line()[:-9] + FAILED.to_line() + RECORD.to_line())
    with pytest.warns(UserWarning, match="1 lines"):
        assert list(database.records()) == [FAILED, RECORD]


def test_logs_are_merged_by_putting_them_together(tmp_path: pathlib.Path) -> None:
    (tmp_path / "both").write_bytes(RECORD.to_line() + b"\n" + FAILED.to_line())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(Database(tmp_path / "both").records()) == [RECORD, FAILED]


@pytest.mark.parametrize("line", [b"7\n", b"{}\n", b"\xff\n", b'{"schema":2,"workload":"k1"}\n'])
def test_what_is_no_record_is_skipped(database: Database, line: bytes) -> None:
    database.append(RECORD)
    database.path.write_bytes(line + RECORD.to_line())
    with pytest.warns(UserWarning, match="1 lines of the tuning log"):
        assert list(database.records()) == [RECORD]


def test_two_processes_append_at_the_same_time(database: Database) -> None:
    command = [sys.executable, "-c", _WRITER, str(database.path)]
    writers = [subprocess.Popen([*command, name], stdin=subprocess.PIPE) for name in ("a", "b")]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(RECORD.to_line())
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0, 0]
    found = [record.error for record in database.records()]
    assert len(found) == 400
    assert [e for e in found if e[0] == "a"] == [f"a.{i}" for i in range(200)]


def test_a_file_that_cannot_be_used(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TuningLogError, match=r"the tuning log .* cannot be read: Is a directory"):
        list(Database(tmp_path).records())
    with pytest.raises(TuningLogError, match=r"the tuning log .* cannot be written: Is a directory"):
        Database(tmp_path).append(RECORD)


def test_a_glance_tells_what_a_record_tells(database: Database) -> None:
    told_beside = dataclasses.replace(RECORD, library=1.25e-5)
    for record in (
        RECORD,
        told_beside,
        dataclasses.replace(told_beside, in_model=True),
        FAILED,
        dataclasses.replace(RECORD, symbol='a "quoted" name', error="} and more\n"),
    ):
        database.append(record)
    database.path.write_bytes(database.path.read_bytes().replace(b'{"schema":1,', b'{ "schema": 1, ', 1))
    for glance, record in zip(database.glances(), database.records(), strict=True):
        names = ("symbol", "target", "status", "seconds", "library", "in_model")
        assert [getattr(glance, name) for name in names] == [getattr(record, name) for name in names]
        assert Decisions.from_json(glance.decisions.decode()) == record.decisions


def test_a_torn_line_is_no_glance(database: Database) -> None:
    database.append(RECORD)
    with database.path.open("ab") as file:
        file.write(FAILED.to_line()[:-20])
    with pytest.warns(UserWarning, match="1 lines of the tuning log"):
        assert len(list(database.glances())) == 1
