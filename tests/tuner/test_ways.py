"""Ways that passes could go: found with their kernels, compared, kept in the log, and used by a compilation."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping

import computed
import numpy as np
import pytest

from polycomp.decisions import Decisions
from polycomp.driver.compile import compile_model
from polycomp.driver.lower import Lowered
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.options import Options
from polycomp.tuner.database import Database
from polycomp.tuner.log import with_log
from polycomp.tuner.measurer import Outcome, Trial
from polycomp.tuner.model_layers import layers_of
from polycomp.tuner.report import report_page, report_sections
from polycomp.tuner.session import Budget, Session, best_times, library_first
from polycomp.tuner.ways import Choice, Ways, find_ways

OPTIONS = Options(jobs=1, threads=1)
BLOCK = OPTIONS.target.lanes(4)
CHANNELS = 2 * BLOCK
PROBLEM = f"Conv of 1x{CHANNELS}x9x7 to {CHANNELS} by 3x3"


def lowering(convolutions: bytes) -> Callable[[Mapping[str, Decisions]], Lowered]:
    graph = import_graph(convolutions, OPTIONS, Observer())
    return lambda made: lower_model(graph, dataclasses.replace(OPTIONS, decisions=made), Observer())


class ByName(computed.Computed):
    """A kernel takes a time that its name tells."""

    def __init__(self, factors: Mapping[str, float]) -> None:
        super().__init__()
        self.factors = factors

    def _outcome(self, trial: Trial) -> Outcome:
        seconds = 1e-3 * next((f for name, f in self.factors.items() if name in trial.workload.symbol), 1.0)
        return dataclasses.replace(super()._outcome(trial), seconds=seconds, samples=(seconds,))


def tuned(
    convolutions: bytes, log: pathlib.Path, factors: Mapping[str, float], trials: int = 40, resume: bool = False
) -> Session:
    layers, ways = layers_of(lowering(convolutions), OPTIONS, library_first())
    session = Session(layers, ByName(factors), Database(log), ways=ways)
    if resume:
        session.resume()
    session.run(Budget(trials))
    return session


def test_the_kernels_of_each_way_are_found(convolutions: bytes) -> None:
    lower = lowering(convolutions)
    base = lower({})
    ways, others = find_ways(base, lower)
    (choice,) = ways.choices
    assert (choice.problem, choice.name, choice.count) == (PROBLEM, "algorithm", 2)
    assert choice.own == base.graph.sites[0].decision.value
    assert set(choice.ways) == {"direct", "F(2x2)", "F(4x4)"}
    for way, calls in choice.ways.items():
        assert len(calls) == calls.total() == 2  # relu and addition are of different kernels
        assert all(("winograd" in symbol) == (way != "direct") for symbol in calls)
        assert way == choice.own or calls.keys() <= others.keys()
    assert ways.calls.keys().isdisjoint(others)
    assert all(set(call.inputs) & constants for call, constants in others.values())


def test_ways_are_compared_by_the_sum_of_their_kernels() -> None:
    choice = Choice("p", "way", "a", 2, {"a": Counter(x=2), "b": Counter(y=2, z=1)})
    ways = Ways(Counter(x=3, other=1), (choice,))
    assert choice.best({}) == choice.best({"y": 1.0, "z": 1.0}) == "a"
    slower = {"x": 1.0, "y": 1.0, "z": 0.5}
    assert choice.known(slower) == {"a": 2.0, "b": 2.5}
    assert ways.best_calls(slower) == {"x": 3, "other": 1}
    assert ways.behind(slower)["z"] == (1, 0.5)
    faster = {"x": 1.0, "y": 0.5, "z": 0.5}
    assert ways.best_calls(faster) == {"x": 1, "y": 2, "z": 1, "other": 1}
    assert ways.behind(faster)["y"] == (2, 0.0)


@pytest.mark.parametrize("fast", ["direct", "filtered"])
def test_the_fastest_way_is_kept_and_compiled(convolutions: bytes, tmp_path: pathlib.Path, fast: str) -> None:
    log = tmp_path / "log"
    slow = "conv_winograd" if fast == "direct" else "conv_blocked"
    session = tuned(convolutions, log, {slow: 3.0})
    (choice,) = session.ways.choices
    way = choice.best(best_times(session.layers))
    assert (way == "direct") == (fast == "direct")
    made = compile_model(convolutions, with_log(OPTIONS, log))
    anchors = Counter("winograd" in step.symbol for step in made.manifest.steps if step.symbol.startswith("conv"))
    assert anchors == ({False: 3} if fast == "direct" else {True: 2, False: 1})
    x = np.random.default_rng(1).standard_normal((1, CHANNELS, 9, 7)).astype(np.float32)
    usual = compile_model(convolutions, OPTIONS).module(1).run({"x": x})["y"]
    np.testing.assert_allclose(made.module(1).run({"x": x})["y"], usual, rtol=1e-3, atol=1e-4)
    assert (PROBLEM in made.manifest.metadata["tuned"]) == (way != choice.own)


def slow_own_way(convolutions: bytes) -> tuple[str, dict[str, float]]:
    """The passes' own way, and times with which all of its kind are slow."""
    (own,) = {site.decision.value for site in lowering(convolutions)({}).graph.sites}
    return str(own), {"conv_blocked" if own == "direct" else "conv_winograd": 3.0}


def test_the_log_tells_ways_once_and_again_when_they_change(convolutions: bytes, tmp_path: pathlib.Path) -> None:
    log, (own, times) = tmp_path / "log", slow_own_way(convolutions)
    tuned(convolutions, log, times)
    told = [r for r in Database(log).records() if r.way]
    assert {r.decisions.get("algorithm") for r in told} >= {own}
    assert all((r.symbol, r.calls) == (PROBLEM, 2) for r in told)
    assert {r.seconds for r in told if r.own} == {3e-3}
    assert with_log(OPTIONS, log).tuned[PROBLEM].get("algorithm") != own
    tuned(convolutions, log, times, resume=True)
    assert len([r for r in Database(log).records() if r.way]) == len(told)
    tuned(convolutions, log, dict.fromkeys(times, 0.2))  # without what the log knows: they are measured again
    assert [r.seconds for r in Database(log).records() if r.way and r.own][-1] == pytest.approx(0.2e-3)


def test_layers_of_slower_ways_get_less(convolutions: bytes, tmp_path: pathlib.Path) -> None:
    session = tuned(convolutions, tmp_path / "log", {"winograd": 30.0}, trials=60)
    trials = Counter[bool]()
    for layer in session.layers:
        trials["winograd" in layer.workload.symbol] += layer.trials
    behind = [x for x in session.layers if "winograd" in x.workload.symbol]
    assert all(x.standing.behind > 0 for x in behind)
    assert trials[True] <= 2 * len(behind) < trials[False]


def test_the_report_tells_of_ways(convolutions: bytes, tmp_path: pathlib.Path) -> None:
    log, (own, times) = tmp_path / "log", slow_own_way(convolutions)
    session = tuned(convolutions, log, times)
    records = list(Database(log).records())
    *_, ways = report_sections(records)
    ((problem, name, count, own_way, best_way, gain),) = ways.rows
    assert (problem, name, count, own_way, gain) == (PROBLEM, "algorithm", "2", f"{own}: 3 ms", "3.00x")
    assert best_way.endswith(": 1 ms")
    calls = session.ways.best_calls(best_times(session.layers))
    best = sum(calls[x.workload.symbol] * (x.best or math.nan) for x in session.layers)
    summary = dict(report_sections(records)[0].rows)
    assert f"{best * 1e3:.3g} ms" in summary["kernels per inference"]
    assert PROBLEM in report_page("log", records)
