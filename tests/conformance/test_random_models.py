"""Random small models, compiled and run, against onnxruntime: several sizes of open dimensions, one and two threads.

``--all-conformance`` runs ten times as many models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import random_steps
from random_models import Array, RandomModel, Step, random_model

from polycomp.driver.compile import compile_model
from polycomp.options import Options

onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCES = {"float16": 2e-2, "float32": 5e-4, "float64": 1e-6}
"""The largest error of an element, as a share of the largest magnitude."""
SIZES = ((1, 1), (3, 7), (17, 2), (16, 33), (5, 16))
"""Values of up to two open dimensions."""

FAMILIES: Mapping[str, Sequence[Step]] = {
    "mixed": random_steps.ALL,
    "vision": random_steps.VISION,
    "language": random_steps.LANGUAGE,
    "integer": random_steps.INTEGER,
    "joining": random_steps.JOINING,
}
COUNTS = (
    *(("mixed", "float32", False, 100), ("vision", "float32", False, 40), ("language", "float32", False, 40)),
    *(("mixed", "float16", False, 40), ("mixed", "float64", False, 40), ("vision", "float64", False, 10)),
    *(("integer", "int32", False, 40), ("integer", "int64", False, 20), ("integer", "uint8", False, 20)),
    *(("integer", "int8", False, 10), ("mixed", "float32", True, 40), ("vision", "float32", True, 10)),
    *(("language", "float32", True, 10), ("mixed", "float16", True, 10), ("integer", "int32", True, 20)),
    *(("joining", "float32", False, 30), ("joining", "float16", False, 5), ("joining", "float32", True, 10)),
)
"""Families of models by element type and whether they have open dimensions, and how many are tried."""

Run = Callable[[Mapping[str, Array]], list[Array]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    factor = 10 if metafunc.config.getoption("--all-conformance") else 1
    metafunc.parametrize(
        ("family", "dtype", "symbolic", "seed"),
        [(*kind, seed) for *kind, count in COUNTS for seed in range(factor * count)],
    )


def test_random_model(family: str, dtype: str, symbolic: bool, seed: int) -> None:
    model = random_model([seed], dtype, symbolic, FAMILIES[family])
    expect, tolerances = _oracle(model, family, dtype, symbolic, seed)
    compiled = compile_model(model.proto, Options(threads=2, cache=False, jobs=1))
    modules = [compiled.module(threads) for threads in (1, 2)]
    for case, sizes in enumerate(SIZES if symbolic else SIZES[:1]):
        feeds = model.feeds(dict(zip(model.symbols, sizes, strict=False)), [seed, case])
        wanted = expect(feeds)
        for module in modules:
            got = module.run(feeds)
            for name, array in zip((o.name for o in model.proto.graph.output), wanted, strict=True):
                _check(got[name], array, tolerances, f"{name} with {sizes}, {module.threads} threads")


def _oracle(model: RandomModel, family: str, dtype: str, symbolic: bool, seed: int) -> tuple[Run, Mapping[str, float]]:
    """onnxruntime's results; where it lacks an operator in float64, those of the same model in float32."""
    try:
        return _session(model.proto), TOLERANCES
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        if dtype == "float64":
            run = _session(random_model([seed], "float32", symbolic, FAMILIES[family]).proto)
            return _widened(run), {**TOLERANCES, "float64": TOLERANCES["float32"]}
        evaluator = onnx.reference.ReferenceEvaluator(model.proto)
        return lambda feeds: [np.asarray(a) for a in evaluator.run(None, dict(feeds))], TOLERANCES


def _session(proto: onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


def _widened(run: Run) -> Run:
    def changed(arrays: Sequence[Array], old: Any, new: Any) -> list[Array]:
        return [a.astype(new) if a.dtype == old else a for a in arrays]

    def run_wide(feeds: Mapping[str, Array]) -> list[Array]:
        narrow = dict(zip(feeds, changed(list(feeds.values()), np.float64, np.float32), strict=True))
        return changed(run(narrow), np.float32, np.float64)

    return run_wide


def _check(got: Array, wanted: Array, tolerances: Mapping[str, float], where: str) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), where
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted, where)
        return
    scale = float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.01))
    if scale < np.finfo(wanted.dtype).max / 4:  # float16 steps may overflow where fused ones, in float32, do not
        limit = tolerances[str(wanted.dtype)] * scale
        np.testing.assert_allclose(got.astype(np.float64), wanted.astype(np.float64), 0, limit, True, where)
