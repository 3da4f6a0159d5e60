"""What was fastest alone is measured in the model, and what is slower there is used no more."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import pytest

from polycomp.decisions import Decisions
from polycomp.driver.bench import Timing
from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.options import Options
from polycomp.runtime import Module
from polycomp.tuner import confirm
from polycomp.tuner.bench import example_feed
from polycomp.tuner.database import Database
from polycomp.tuner.history import histories
from polycomp.tuner.in_model import kernel_seconds
from polycomp.tuner.log import with_log
from polycomp.tuner.model_layers import layers_of
from polycomp.tuner.record import Record
from polycomp.tuner.session import Layer, library_first, record_of_way

OPTIONS = Options(jobs=1, threads=1)
TILE, OWN = "t2.tile", 1e-6
ALONE = {2: 0.5e-6, 3: 0.25e-6, 4: 0.75e-6}
"""Seconds by the rows of tiles, where the library's own takes 1e-6."""


class Planted:
    """A model with a kernel that takes the seconds ``kernel`` in it, by decisions; others take no time. Its log has
    three schedules that were all faster alone."""

    def __init__(self, model: bytes, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.database = model, Database(path)
        graph = import_graph(model, OPTIONS, Observer())
        self.layers, self.ways = layers_of(
            lambda made: lower_model(graph, with_(made), Observer()), OPTIONS, library_first()
        )
        self.kernel: Callable[[str, Decisions], float] = lambda *_: OWN
        self.whole: Callable[[Options], float] = lambda _: 1e-3
        self.compiled: dict[int, tuple[Module, Options]] = {}
        monkeypatch.setattr(confirm, "kernel_seconds", self._kernel_seconds)
        monkeypatch.setattr(confirm, "measure", self._measure)

    @property
    def layer(self) -> Layer:
        """The first kernel."""
        return self.layers[0]

    @property
    def options(self) -> list[Options]:
        """With which modules were made, in order."""
        return [options for _, options in self.compiled.values()]

    def add(self, layer: Layer, made: Decisions, seconds: float) -> None:
        """A measurement alone."""
        names = (layer.workload.key, layer.workload.symbol, layer.workload.target.key)
        self.database.append(Record(*names, made, "ok", seconds, (), "", {}, library=OWN))

    def confirm(self) -> confirm.Confirmation:
        return confirm.confirm(self._compile, OPTIONS, self.database, self.layers, self.ways)

    def chosen(self, symbol: str | None = None) -> Decisions:
        return with_log(OPTIONS, self.database.path).tuned[symbol or self.layer.workload.symbol]

    def _compile(self, options: Options) -> Module:
        module = compile_model(self.model, options).module(options.threads)
        self.compiled[id(module)] = module, options
        return module

    def _kernel_seconds(self, modules: Sequence[Module], _: object) -> list[dict[str, float]]:
        return [
            {
                s.symbol: self.kernel(s.symbol, self._options(module).decisions_for(s.symbol))
                for s in module.manifest.steps
            }
            for module in modules
        ]

    def _options(self, module: Module) -> Options:
        return self.compiled[id(module)][1]

    def _measure(self, _: object) -> dict[str, Timing]:
        plain, tuned = self.options[0], self.options[-1]
        seconds = {"untuned": self.whole(plain), "tuned": self.whole(tuned)}
        return {name: Timing(each, each, each, 1) for name, each in seconds.items()}


def with_(made: Mapping[str, Decisions]) -> Options:
    return Options(jobs=1, threads=1, decisions=made)


@pytest.fixture
def planted(model: bytes, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    planted = Planted(model, tmp_path / "log", monkeypatch)
    planted.add(planted.layer, planted.layer.space.own.decisions, OWN)
    for rows, seconds in ALONE.items():
        planted.add(planted.layer, rows_of(rows), seconds)
    return planted


def rows_of(rows: int) -> Decisions:
    return Decisions().replace(TILE, (1, rows, 1))


def by_rows(seconds: Mapping[int, float]) -> Callable[[str, Decisions], float]:
    """Times in the model."""
    return lambda _, made: next((t for rows, t in seconds.items() if made == rows_of(rows)), OWN)


def test_what_is_fastest_in_the_model_is_used(planted: Planted) -> None:
    planted.kernel = by_rows({2: 0.7e-6, 3: 0.8e-6, 4: 0.9e-6})
    assert planted.chosen() == rows_of(3)
    found = planted.confirm()
    assert planted.chosen() == rows_of(2)
    assert (found.tried, found.kept) == ((planted.layer.workload.symbol,), ())
    tried = [options.tuned.get(planted.layer.workload.symbol) for options in planted.options]
    # That of four rows was slower alone than these in the model; the last two are the whole model without and with it.
    assert tried == [None, rows_of(3), rows_of(2), None, rows_of(2)]
    last = list(planted.database.records())[-1]
    assert (last.decisions, last.seconds, last.library, last.in_model) == (rows_of(2), 0.7e-6, OWN, True)


def test_what_was_tried_in_the_model_is_not_tried_again(planted: Planted) -> None:
    planted.kernel = by_rows({2: 0.7e-6, 3: 0.6e-6})
    planted.confirm()
    before = planted.database.path.read_bytes()
    planted.confirm()
    assert planted.database.path.read_bytes() == before


def test_in_the_end_the_librarys_own_is_used(planted: Planted) -> None:
    planted.kernel = by_rows(dict.fromkeys(ALONE, 1.1e-6))
    found = planted.confirm()
    assert planted.chosen() == planted.layer.space.own.decisions
    assert found.kept == found.tried == (planted.layer.workload.symbol,)


def test_what_makes_the_whole_model_slower_is_dropped(planted: Planted) -> None:
    planted.kernel = by_rows(dict.fromkeys(ALONE, 0.9e-6))
    own = planted.layer.space.own.decisions
    planted.whole = lambda options: 1.5e-3 if options.tuned.get(planted.layer.workload.symbol, own) != own else 1e-3
    found = planted.confirm()
    assert planted.chosen() == own
    assert (found.untuned, found.tuned) == (1e-3, 1e-3)


def test_one_slow_spell_drops_nothing(planted: Planted) -> None:
    planted.kernel = by_rows({3: 0.9e-6})
    slow = iter([1.5e-3])
    planted.whole = lambda options: next(slow, 0.9e-3) if options.tuned else 1e-3
    found = planted.confirm()
    assert planted.chosen() == rows_of(3)
    assert (found.untuned, found.tuned) == (1e-3, 0.9e-3)


def test_a_report_tells_what_was_found_in_the_model(planted: Planted) -> None:
    planted.kernel = by_rows({2: 0.7e-6, 3: 0.8e-6})
    planted.confirm()
    ((history,),) = histories(planted.database.records()).values()
    assert len(history.records) == 1 + len(ALONE)
    assert history.best == pytest.approx(0.7e-6)


def test_ways_are_compared_in_the_model(
    convolutions: bytes, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(convolutions, tmp_path / "log", monkeypatch)
    (choice,) = planted.ways.choices
    others = [way for way in choice.ways if way != choice.own]
    for layer in planted.layers:
        layer.quickest = OWN  # every kernel: so ways of fewer are the fastest alone
    for way, seconds in ((choice.own, 2e-6), (others[0], 1e-6)):
        planted.database.append(record_of_way(choice, way, (seconds, 2e-6), OPTIONS.kernel_target.key))
    assert planted.chosen(choice.problem).get(choice.name) == others[0]
    slow = choice.ways[others[0]].keys() - choice.ways[choice.own].keys()
    planted.kernel = lambda symbol, _: 1.2 * OWN if symbol in slow else OWN
    found = planted.confirm()
    assert choice.problem in found.kept
    assert planted.chosen(choice.problem).get(choice.name) == choice.own


def test_kernels_of_modules_are_timed(model: bytes) -> None:
    module = compile_model(model, OPTIONS).module(1)
    for times in kernel_seconds((module, module), example_feed(module)):
        assert times.keys() == {step.symbol for step in module.manifest.steps}
        assert all(seconds > 0 for seconds in times.values())
