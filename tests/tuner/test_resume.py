"""Killed and resumed: nothing is lost, nothing is measured twice, and old logs fail softly."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import computed
import planted
import pytest
from endless_session import make_search

from polycomp.tuner.database import Database
from polycomp.tuner.measurer import Trial
from polycomp.tuner.pool import LocalPool
from polycomp.tuner.record import Record
from polycomp.tuner.session import Budget, Layer, Session
from polycomp.tuner.space import Space


def records_of(path: pathlib.Path, count: int) -> list[Record]:
    """At least ``count`` records, of a session that is killed then."""
    folder = pathlib.Path(__file__).parent
    command = [sys.executable, str(folder / "endless_session.py"), str(path)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
    try:
        while len(list(Database(path).records())) < count:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    return list(Database(path).records())


def test_a_killed_session_is_resumed_without_loss(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    known = records_of(log, 20)
    layer, measurer = Layer(planted.product(), 1, make_search), computed.Computed()
    session = Session([layer], measurer, Database(log))
    assert session.resume() == len(known)
    assert layer.own is not None
    assert layer.best == min(r.seconds for r in known if r.seconds is not None)
    session.run(Budget(16))
    done = {r.decisions for r in known}
    assert len(measurer.seen) == 16
    assert not done & {t.decisions for t in measurer.seen}
    assert len(list(Database(log).records())) == len(known) + 16


def test_a_layer_that_was_tried_for_long_is_not_hoped_of_anew(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    Session([Layer(planted.product(), 1, make_search)], computed.Computed(), Database(log)).run(Budget(24))
    layer = Layer(planted.product(), 1, make_search)
    Session([layer], computed.Computed(), Database(log)).resume()
    assert layer.standing.batches == 3


def test_records_that_fit_no_longer_are_told(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    layer = Layer(planted.product(), 1, make_search)
    Session([layer], computed.Computed(), Database(log)).run(Budget(4))
    log.write_text(log.read_text().replace('"decisions":{', '"decisions":{"t2.colour":3,'))
    again = Session([Layer(planted.product(), 1, make_search)], computed.Computed(), Database(log))
    with pytest.warns(UserWarning, match="4 measurements of the tuning log are of schedules that exist no more"):
        assert again.resume() == 0


def test_a_resumed_session_tells_times_by_the_library_as_it_was_timed_before(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "tune.jsonl"
    Session([Layer(planted.product(), 1, make_search)], computed.Computed(), Database(log)).run(Budget(24))
    layer, measurer = Layer(planted.product(), 1, make_search), computed.Computed()
    session = Session([layer], measurer, Database(log))
    session.resume()
    session.run(Budget(4))
    assert layer.own is not None
    assert [trial.library for trial in measurer.seen] == [layer.own] * 4


def test_a_pool_tells_times_by_the_library_seconds_of_the_trial() -> None:
    workload = planted.product()
    own = Space(workload).own
    with LocalPool(1, 1) as pool:
        pool.submit(Trial(1, workload, own.decisions, library=1000.0))
        (outcome,) = pool.collect()
    assert outcome.library == 1000.0
    assert outcome.seconds is not None and outcome.seconds > 1.0
