"""Machines that are lost: their trials go to others, and what kills several of them is a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import planted
import pytest

from polycomp.decisions import Decisions
from polycomp.errors import FleetError
from polycomp.tuner.bench import Bench, Measured, Reference
from polycomp.tuner.builder import answer, build_candidate
from polycomp.tuner.machine import Machine, MachineLostError
from polycomp.tuner.measurer import Outcome, Trial
from polycomp.tuner.pool import Pool
from polycomp.tuner.status import Status
from polycomp.tuner.timer import Limits, Standing, Timer
from polycomp.tuner.timing import Effort


class Frail(Machine):
    """Does everything in this process, until a request that it does not survive."""

    def __init__(self, name: str, dies: Callable[[Any], bool], jobs: int = 1, times: bool = True) -> None:
        super().__init__(name, jobs, times)
        self._dies, self._bench = dies, Bench(Effort(seconds=0.001))

    def build(self, job: int, request: Any, seconds: float) -> Any:
        self._survive(request)
        return answer(request)

    def time(self, request: Any, seconds: float) -> Any:
        self._survive(request)
        return self._bench.answer(request)

    def close(self) -> None:
        pass

    def _survive(self, request: Any) -> None:
        if self._dies(request):
            raise MachineLostError(f"the node {self.name} was lost: planted")


def never(request: Any) -> bool:
    return False


def after(count: int) -> Callable[[Any], bool]:
    """The machine is lost with the request behind so many."""
    requests = iter(range(count))
    return lambda request: next(requests, None) is None


def builds(rows: int) -> Callable[[Any], bool]:
    """Lost by whoever builds a candidate with so many rows."""
    return lambda request: isinstance(request, tuple) and planted.rows_of(request[-1]) == rows


def measured(machines: list[Machine], rows: range) -> dict[int, Outcome]:
    workload, outcomes = planted.product(), dict[int, Outcome]()
    with Pool(machines, Limits()) as pool:
        for row in rows:
            pool.submit(Trial(row, workload, Decisions().replace(planted.TILE, (1, row, 1))))
        while found := pool.collect():
            outcomes |= {o.number: o for o in found}
    return outcomes


@pytest.mark.parametrize("count", range(12))
def test_whatever_a_lost_machine_had_is_measured_elsewhere(count: int) -> None:
    """The machine is lost while it compiles a reference or a candidate, or times one of them."""
    outcomes = measured([Frail("a", after(count)), Frail("b", never)], range(1, 6))
    assert {n: o.status for n, o in outcomes.items()} == dict.fromkeys(range(1, 6), Status.OK)


def test_what_kills_machines_is_a_crash_and_not_tried_for_ever() -> None:
    outcomes = measured([Frail(name, builds(3)) for name in "abc"], range(1, 6))
    assert [n for n, o in sorted(outcomes.items()) if o.status is Status.OK] == [1, 2, 4, 5]
    assert outcomes[3].status is Status.CRASH
    assert outcomes[3].error.startswith("2 machines were lost that tried it; of the last: the node ")


@pytest.mark.parametrize("what", ["compiles", "times"])
def test_when_no_machine_is_left_it_is_told(what: str) -> None:
    kinds, plans = {"compiles": (1, False), "times": (0, True)}, {"a": after(2), "b": never}
    names = {kind: "a" if kind == what else "b" for kind in kinds}
    machines: list[Machine] = [Frail(names[kind], plans[names[kind]], *kinds[kind]) for kind in kinds]
    with pytest.raises(FleetError, match=f"^no machine is left that {what}; of the last: the node a was lost"):
        measured(machines, range(1, 6))


class Slow(Frail):
    """Takes so many seconds for the library's own schedule, and half of it for all others."""

    def __init__(self, seconds: float) -> None:
        super().__init__("slow", never)
        self.seconds, self.told = seconds, list[Reference]()

    def time(self, request: Any, seconds: float) -> Any:
        if isinstance(request, Reference):
            self.told.append(request)
            return Measured(self.seconds, library=self.seconds)
        return Measured(self.seconds / 2, library=self.seconds) if self.told else Measured(unknown=True)


def test_machines_that_are_not_equally_fast_tell_the_same_ratios() -> None:
    workload = planted.product()
    parts = build_candidate(workload, Decisions())
    standing = Standing(parts, parts)
    machines = [Slow(1.0), Slow(3.0)]
    found = [Timer(m, Limits()).time(workload, standing, parts) for m in machines]
    assert [measured.seconds / measured.library for measured in found] == [0.5, 0.5]
    assert [m.told[0].plain for m in machines] == [parts, None]  # compared with plain loops once
