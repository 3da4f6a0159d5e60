"""Layers for GPUs with the detector of races, and with sanitizers, where each array is in memory of its own.

A sample of the layers, always the same; ``--all-conformance`` runs all.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from cuda_harness import sanitizers_available
from device_models import Compiler, compile_for_races, expect_right
from gpu_machine import needs_harness
from layers import LAYERS, trial_of
from separate_launches import compile_separately

pytestmark = needs_harness

COMPILERS: dict[str, Compiler] = {"races": compile_for_races, "memory": compile_separately}
DTYPES = {"float": 5, "float16": 12}
"""Of how many layers one is in the sample."""

_TOGETHER = 9


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    groups = list(_groups(metafunc.config.getoption("--all-conformance")))
    names = [f"{kind}-{dtype}-{names[0]}" for kind, dtype, names in groups]
    metafunc.parametrize(("kind", "dtype", "names"), groups, ids=names)


def _groups(everything: bool) -> Iterator[tuple[str, str, list[str]]]:
    for kind in COMPILERS:
        for dtype, share in DTYPES.items():
            names = [n for n in LAYERS if everything or zlib.crc32(f"{kind} {dtype} {n}".encode()) % share == 0]
            for first in range(0, len(names), _TOGETHER):
                yield kind, dtype, names[first : first + _TOGETHER]


def test_layers_alone(kind: str, dtype: str, names: list[str]) -> None:
    if kind == "memory" and not sanitizers_available():
        pytest.skip("g++ has no sanitizers here")
    expect_right({f"{name} {dtype} {kind}": trial_of(name, dtype) for name in names}, COMPILERS[kind])
