"""The local pool: candidates that crash, hang, lie or eat memory are outcomes, and the others are measured."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future

import planted
import pytest

from polycomp.decisions import Decisions
from polycomp.tuner.builder import build_plain
from polycomp.tuner.measurer import Outcome, Trial
from polycomp.tuner.pool import LocalPool
from polycomp.tuner.status import Status
from polycomp.tuner.timer import Limits, Standing

LIMITS = Limits(compile_seconds=4.0, run_seconds=1.0, memory_bytes=2 << 30)
ROWS = {
    1: (Status.OK, ""),
    2: (Status.CRASH, "its process ended by SIGSEGV"),
    3: (Status.TIMEOUT, "it took longer than 1 seconds"),
    4: (Status.WRONG, "the result t2 is "),
    5: (Status.OUT_OF_MEMORY, "it took more memory than the limit"),
    6: (Status.OUT_OF_MEMORY, "it took more memory than the limit"),
    7: (Status.TIMEOUT, "it took longer than 4 seconds"),
    8: (Status.REFUSED, "planted"),
    9: (Status.OK, ""),
    99: (Status.REFUSED, "'t2.tile' cannot be (1, 99, 1)"),
}


def collect(pool: LocalPool) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    while found := pool.collect():
        outcomes |= {o.number: o for o in found}
    return outcomes


def test_each_candidate_is_what_it_was() -> None:
    workload = planted.product()
    with LocalPool(1, 2, LIMITS, planted.build_planted) as pool:
        for rows in ROWS:
            pool.submit(Trial(rows, workload, Decisions().replace(planted.TILE, (1, rows, 1))))
        outcomes = collect(pool)
    assert {rows: o.status for rows, o in outcomes.items()} == {rows: status for rows, (status, _) in ROWS.items()}
    for rows, (status, reason) in ROWS.items():
        outcome = outcomes[rows]
        assert outcome.error.startswith(reason)
        assert (outcome.seconds is not None and outcome.seconds > 0) == (status is Status.OK)
        assert bool(outcome.samples) == (status is Status.OK)


def test_a_library_that_is_wrong_is_told_for_every_trial() -> None:
    """With a reference of a schedule that computes nothing, which the plain loops find out."""
    workload = planted.product()
    with LocalPool(1, 1) as pool:
        standing = Standing(planted.with_code(workload, planted.NOTHING), build_plain(workload, Decisions()))
        pool._standings[workload.key] = Future()
        pool._standings[workload.key].set_result(standing)
        pool.submit(Trial(0, workload, Decisions()))
        (outcome,) = pool.collect()
    assert outcome.status is Status.WRONG
    assert outcome.error.startswith("the library's own schedule: the result t2 of the schedule library is ")


def test_a_killed_timing_process_is_replaced_and_nothing_is_left_behind() -> None:
    workload, outcomes = planted.product(), list[Outcome]()
    with pytest.raises(KeyboardInterrupt), LocalPool(1, 1) as pool:
        pool.submit(Trial(0, workload, Decisions()))
        outcomes += pool.collect()
        assert pool.machine.bench.pid is not None
        os.kill(pool.machine.bench.pid, signal.SIGKILL)
        for number in (1, 2):
            pool.submit(Trial(number, workload, Decisions()))
            outcomes += pool.collect()
        pids = [p.pid for p in (*pool.machine.builders, pool.machine.bench)]
        pool.submit(Trial(3, workload, Decisions()))
        raise KeyboardInterrupt
    assert [o.status for o in outcomes] == [Status.OK, Status.OUT_OF_MEMORY, Status.OK]
    assert outcomes[1].error == "its process was killed, as the system does when memory is short"
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
