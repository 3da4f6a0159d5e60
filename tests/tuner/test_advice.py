"""A tuning log in a compilation: it is used, also that of a near target, and where it fits no longer it says so."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from polycomp.decisions import Decisions
from polycomp.driver.compile import CompiledModel, compile_model
from polycomp.errors import TuningLogError
from polycomp.options import Options
from polycomp.tuner.database import Database
from polycomp.tuner.log import with_log
from polycomp.tuner.record import Record

TILE = "t2.tile"


OPTIONS = Options(jobs=1, threads=1)


def record(symbol: str, rows: int, seconds: float | None, target: str = OPTIONS.kernel_target.key) -> Record:
    decisions, status = Decisions().replace(TILE, (1, rows, 1)), "wrong" if seconds is None else "ok"
    return Record("key", symbol, target, decisions, status, seconds, (), "", {})


def compiled(model: bytes, log: pathlib.Path | None, options: Options = OPTIONS) -> CompiledModel:
    return compile_model(model, with_log(options, log))


def check(made: CompiledModel) -> None:
    random = np.random.default_rng(0)
    feeds = {n: random.standard_normal(s).astype(np.float32) for n, s in (("a", (40, 33)), ("b", (33, 64)))}
    np.testing.assert_allclose(made.module(1).run(feeds)["c"], feeds["a"] @ feeds["b"], rtol=1e-4, atol=1e-4)


def test_the_best_of_a_log_is_used(model: bytes, tmp_path: pathlib.Path) -> None:
    usual = compile_model(model, OPTIONS)
    symbol = usual.manifest.steps[0].symbol
    for rows, seconds in ((2, 3e-6), (3, 1e-6), (4, 2e-6), (5, None)):
        Database(tmp_path / "log").append(record(symbol, rows, seconds))
    Database(tmp_path / "log").append(record("other_kernel", 3, 1e-6))
    made = compiled(model, tmp_path / "log")
    wanted = dataclasses.replace(OPTIONS, decisions={symbol: Decisions().replace(TILE, (1, 3, 1))})
    assert made.parts.shared_object == compile_model(model, wanted).parts.shared_object
    assert made.parts.shared_object != usual.parts.shared_object
    assert made.manifest.metadata["tuned"] == {symbol: "exact"}
    assert usual.manifest.metadata["tuned"] == {}
    check(made)


def test_the_users_own_log_is_used_without_being_named(model: bytes, tmp_path: pathlib.Path) -> None:
    symbol = compiled(model, None).manifest.steps[0].symbol
    Database(tmp_path / "cache" / "polycomp" / "tune.jsonl").append(record(symbol, 3, 1e-6))
    assert compiled(model, None).manifest.metadata["tuned"] == {symbol: "exact"}


def test_a_near_target_is_used_and_marked(model: bytes, tmp_path: pathlib.Path) -> None:
    symbol = compiled(model, None).manifest.steps[0].symbol
    target = OPTIONS.kernel_target
    near = dataclasses.replace(target, cpu="other", l2_bytes=2 * target.l2_bytes).key
    Database(tmp_path / "log").append(record(symbol, 3, 1e-6, near))
    assert compiled(model, tmp_path / "log").manifest.metadata["tuned"] == {symbol: "near"}
    Database(tmp_path / "log").append(record(symbol, 2, 1e-3))
    assert compiled(model, tmp_path / "log").manifest.metadata["tuned"] == {symbol: "exact"}


@pytest.mark.parametrize("change", [{"features": ("sse3",)}, {"triple": "aarch64-unknown-linux-gnu"}, {"cores": 64}])
def test_a_far_target_is_not_used(model: bytes, tmp_path: pathlib.Path, change: dict[str, object]) -> None:
    symbol = compiled(model, None).manifest.steps[0].symbol
    far = dataclasses.replace(OPTIONS.kernel_target, **change).key  # type: ignore[arg-type]
    Database(tmp_path / "log").append(record(symbol, 3, 1e-6, far))
    assert compiled(model, tmp_path / "log").manifest.metadata["tuned"] == {}


def test_decisions_that_fit_no_longer_are_told_and_left_out(model: bytes, tmp_path: pathlib.Path) -> None:
    usual = compile_model(model, OPTIONS)
    symbol = usual.manifest.steps[0].symbol
    Database(tmp_path / "log").append(record(symbol, 999, 1e-6))
    for options in (OPTIONS, dataclasses.replace(OPTIONS, cache=False)):
        with pytest.warns(UserWarning, match=rf"decisions for 1 kernels that fit no longer, .* of {symbol}: 't2.tile'"):
            made = compiled(model, tmp_path / "log", options)
        assert made.parts.shared_object == usual.parts.shared_object
        assert made.manifest.metadata["tuned"] == {}
        check(made)


def test_decisions_given_by_the_user_come_first(model: bytes, tmp_path: pathlib.Path) -> None:
    symbol = compile_model(model, OPTIONS).manifest.steps[0].symbol
    Database(tmp_path / "log").append(record(symbol, 3, 1e-6))
    given = dataclasses.replace(OPTIONS, decisions={symbol: Decisions().replace(TILE, (1, 2, 1))})
    made = compiled(model, tmp_path / "log", given)
    assert made.parts.shared_object == compile_model(model, given).parts.shared_object


def test_a_log_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TuningLogError, match=r"there is no tuning log .*none.jsonl; 'polycomp tune MODEL --db"):
        with_log(OPTIONS, tmp_path / "none.jsonl")
