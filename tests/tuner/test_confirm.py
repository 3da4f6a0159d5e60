"""What is slower in the model than the library's own schedule is noted in the log, and used no more."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import pytest

from polycomp.decisions import Decisions
from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.options import Options
from polycomp.runtime import Module
from polycomp.tuner import confirm
from polycomp.tuner.bench import example_feed
from polycomp.tuner.database import Database
from polycomp.tuner.log import with_log
from polycomp.tuner.model_layers import layers_of
from polycomp.tuner.record import Record
from polycomp.tuner.session import Layer, library_first

OPTIONS = Options(jobs=1, threads=1)
TILE = "t2.tile"
ROWS = {2: 0.5e-6, 3: 0.25e-6, 4: 0.75e-6}
"""Seconds by the rows of tiles, where the library's own takes 1e-6."""


@pytest.fixture
def layer(model: bytes) -> Layer:
    """The product, with the library's own time."""
    graph = import_graph(model, OPTIONS, Observer())
    ((layer,), _) = layers_of(lambda _: lower_model(graph, OPTIONS, Observer()), OPTIONS, library_first())
    layer.own = 1e-6
    return layer


@pytest.fixture
def database(layer: Layer, tmp_path: pathlib.Path) -> Database:
    """A log of the library's own and three others, which were all faster."""
    database, workload = Database(tmp_path / "log"), layer.workload
    decided = {decisions(rows): seconds for rows, seconds in ROWS.items()}
    for made, seconds in ({layer.space.own.decisions: 1e-6} | decided).items():
        names = (workload.key, workload.symbol, workload.target.key)
        database.append(Record(*names, made, "ok", seconds, (), "", {}, library=1e-6))
    return database


def decisions(rows: int) -> Decisions:
    return Decisions().replace(TILE, (1, rows, 1))


def confirmed(
    model: bytes, layer: Layer, database: Database, seen: list[Options] | None = None
) -> confirm.Confirmation:
    """``seen`` gets the options of all modules, in order."""

    def compiled(options: Options) -> Module:
        if seen is not None:
            seen.append(options)
        return compile_model(model, options).module(options.threads)

    return confirm.confirm(compiled, OPTIONS, database, [layer])


def plant(monkeypatch: pytest.MonkeyPatch, layer: Layer, ratios: list[float]) -> None:
    """The ratios that are found in the model, one after the other."""
    left = iter(ratios)
    monkeypatch.setattr(confirm, "kernel_ratios", lambda *_: {layer.workload.symbol: next(left)})


def chosen(layer: Layer, database: Database) -> Decisions:
    return with_log(OPTIONS, database.path).tuned[layer.workload.symbol]


def test_what_is_faster_in_the_model_is_kept(
    model: bytes, layer: Layer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, layer, [1.0])
    before = database.path.read_bytes()
    found = confirmed(model, layer, database)
    assert found.dropped == ()
    assert found.untuned > 0
    assert found.tuned > 0
    assert database.path.read_bytes() == before


def test_the_next_best_follows_what_is_slower_in_the_model(
    model: bytes, layer: Layer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, layer, [1.5, 0.9])
    assert chosen(layer, database) == decisions(3)
    assert confirmed(model, layer, database).dropped == (layer.workload.symbol,)
    assert chosen(layer, database) == decisions(2)
    last = list(database.records())[-1]
    assert (last.decisions, last.seconds, last.library) == (decisions(3), pytest.approx(1.5e-6), 1e-6)


def test_in_the_end_the_librarys_own_is_used(
    model: bytes, layer: Layer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, layer, [1.5, 1.2, 1.1, 1.3])  # the last is the library's own beside itself
    confirmed(model, layer, database)
    assert chosen(layer, database) == layer.space.own.decisions
    assert len(list(database.records())) == 1 + 2 * len(ROWS)


def test_the_last_figure_is_of_what_the_log_has_then(
    model: bytes, layer: Layer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "_TURNS", 1)
    plant(monkeypatch, layer, [1.5])
    seen: list[Options] = []
    confirmed(model, layer, database, seen)
    assert [options.tuned.get(layer.workload.symbol) for options in seen] == [None, decisions(3), decisions(2)]


def test_kernels_of_two_modules_are_compared(model: bytes) -> None:
    module = compile_model(model, OPTIONS).module(1)
    ratios: Mapping[str, float] = confirm.kernel_ratios(module, module, example_feed(module))
    assert ratios.keys() == {step.symbol for step in module.manifest.steps}
    assert all(ratio > 0 for ratio in ratios.values())
