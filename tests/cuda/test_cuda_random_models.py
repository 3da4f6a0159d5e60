"""Random small models for GPUs, executed on the CPU with the threads forwards and backwards, against the CPU target.

They are those of ``tests/conformance``, where onnxruntime tells what is right. Models with open dimensions run at two
sizes. ``--all-conformance`` runs ten times as many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pytest
import random_steps
from device_models import Trial, expect_right
from gpu_machine import needs_harness
from random_models import Step, random_model

pytestmark = needs_harness

FAMILIES: Mapping[str, Sequence[Step]] = {
    "mixed": random_steps.ALL,
    "vision": random_steps.VISION,
    "language": random_steps.LANGUAGE,
    "integer": random_steps.INTEGER,
    "joining": random_steps.JOINING,
}
COUNTS = (
    *(("mixed", "float32", True, 15), ("vision", "float32", True, 5), ("language", "float32", True, 5)),
    *(("mixed", "float16", True, 5), ("integer", "int32", True, 5), ("joining", "float32", True, 5)),
    *(("mixed", "float32", False, 10), ("vision", "float32", False, 5), ("language", "float32", False, 5)),
    *(("mixed", "float16", False, 5), ("mixed", "float64", False, 5), ("joining", "float16", False, 5)),
    *(("integer", "int64", False, 5), ("integer", "uint8", False, 5), ("integer", "int8", False, 5)),
)
"""Families of models by element type and whether they have open dimensions, and how many are tried."""

SIZES = ((3, 7), (16, 33))
"""Of up to two open dimensions."""

_TOGETHER = 5
_FIRST = 1000  # other models than those that tests/conformance begins with


def _groups(factor: int) -> Iterator[tuple[str, str, bool, tuple[int, ...]]]:
    for family, dtype, symbolic, count in COUNTS:
        seeds = iter(range(_FIRST, _FIRST + factor * count))
        while some := tuple(itertools.islice(seeds, _TOGETHER)):
            yield family, dtype, symbolic, some


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    groups = list(_groups(10 if metafunc.config.getoption("--all-conformance") else 1))
    names = [f"{family}-{dtype}-{'open' if open_ else 'known'}-{seeds[0]}" for family, dtype, open_, seeds in groups]
    metafunc.parametrize(("family", "dtype", "symbolic", "seeds"), groups, ids=names)


def test_random_models(family: str, dtype: str, symbolic: bool, seeds: tuple[int, ...]) -> None:
    trials = {f"{family} {dtype} {symbolic} {seed}": _trial(family, dtype, symbolic, seed) for seed in seeds}
    expect_right(trials)


def _trial(family: str, dtype: str, symbolic: bool, seed: int) -> Trial:
    model = random_model([seed], dtype, symbolic, FAMILIES[family])
    sizes = [dict(zip(model.symbols, s, strict=False)) for s in (SIZES if symbolic else SIZES[:1])]
    return Trial(model.proto, [model.feeds(given, [seed, case]) for case, given in enumerate(sizes)])
