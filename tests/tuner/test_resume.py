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

from polycomp.decisions import Decisions
from polycomp.tuner.best import best_decisions
from polycomp.tuner.database import Database
from polycomp.tuner.record import Record
from polycomp.tuner.session import Budget, Layer, Session


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


def test_times_are_compared_by_the_library_of_their_own_run(tmp_path: pathlib.Path) -> None:
    """The machine is three times as fast in the second run: nothing of it is better for that."""
    log = tmp_path / "tune.jsonl"
    Session([Layer(planted.product(), 1, make_search)], computed.Computed(library=6e-3), Database(log)).run(Budget(24))
    layer = Layer(planted.product(), 1, make_search)
    faster = computed.Computed(lambda d: computed.landscape(d) / 3, library=2e-3)
    session = Session([layer], faster, Database(log))
    session.resume()
    best = layer.best
    session.run(Budget(8))
    ratios = {r.decisions: computed.landscape(r.decisions) / 6e-3 for r in Database(log).records() if not r.own}
    assert layer.own == 6e-3
    assert best is not None and layer.best is not None
    assert layer.best <= best
    assert {r.decisions: r.seconds / r.library for r in Database(log).records() if not r.own} == pytest.approx(ratios)  # type: ignore[operator]
    assert ratios[best_of(log)] == min(ratios.values())


def best_of(log: pathlib.Path) -> Decisions:
    """What a compilation takes from the log."""
    workload = planted.product()
    return best_decisions(Database(log).glances(), workload.target).decisions[workload.symbol]
