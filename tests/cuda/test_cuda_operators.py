"""All operators for GPUs, executed on the CPU with the threads forwards and backwards.

Of the onnx package's cases a quarter runs, and a share of the layers, always the same; ``--all-conformance`` runs all.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx
import pytest
from cuda_harness.model import run_on_harness
from device_models import Array, Check, Trial, difference, expect_right
from gpu_machine import needs_harness
from half_models import HALVES, as_half, with_halves
from layers import LAYERS, trial_of
from onnx import TensorProto
from onnx_cases import Case, node_families, node_family, stored_cases
from test_onnx_cases import DIFFERENT, HALF_TOLERANCE

import polycomp
from polycomp.errors import ExecutionError

pytestmark = needs_harness

_SHARE, _MOST = 4, 12
"""One of so many cases runs; and no more of a family."""
_LAYERS = {"float": 2, "float16": 5, "bfloat16": 8, "double": 10}
"""One of so many layers runs, by element type."""
_LAYERS_TOGETHER = 11


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", node_families())
    if "names" in metafunc.fixturenames:
        groups = list(_groups_of_layers(metafunc.config.getoption("--all-conformance")))
        metafunc.parametrize(("dtype", "names"), groups, ids=[f"{dtype}-{names[0]}" for dtype, names in groups])


def _groups_of_layers(everything: bool) -> Iterator[tuple[str, list[str]]]:
    """Names of layers by element type, several that are compiled together."""
    for dtype, share in _LAYERS.items():
        names = [name for name in LAYERS if everything or _is_chosen(f"{dtype} {name}", share)]
        for first in range(0, len(names), _LAYERS_TOGETHER):
            yield dtype, names[first : first + _LAYERS_TOGETHER]


def _is_chosen(name: str, share: int = _SHARE) -> bool:
    return zlib.crc32(name.encode()) % share == 0


# The onnx package's cases


def test_node_cases(family: str, request: pytest.FixtureRequest) -> None:
    expect_right(dict(map(_trial, _sample(node_family(family), request))))


@pytest.mark.parametrize("kind", ["simple", "pytorch-operator", "pytorch-converted"])
def test_stored_cases(kind: str, request: pytest.FixtureRequest) -> None:
    expect_right(dict(map(_trial, _sample(stored_cases(kind), request))))


def test_node_cases_of_16_bits(family: str, request: pytest.FixtureRequest) -> None:
    """Cases of float32 as the same in 16 bits, against the CPU target: few, but all operators."""
    everything = request.config.getoption("--all-conformance")
    cases = [c for c in node_family(family) if "expanded" not in c.name and _has_floats(c.model)]
    chosen = cases if everything else [c for c in cases[:1] if _is_chosen(f"half {c.name}")]
    expect_right(dict(_half_trial(case, dtype) for case in chosen for dtype in HALVES))


def _sample(cases: Iterable[Case], request: pytest.FixtureRequest) -> list[Case]:
    """The first of a family, and of the others a share."""
    if request.config.getoption("--all-conformance"):
        return list(cases)
    plain = [c for c in cases if "expanded" not in c.name]
    return [c for i, c in enumerate(plain) if i == 0 or _is_chosen(c.name)][:_MOST]


def _trial(case: Case) -> tuple[str, Trial]:
    """Against what the case says; where that is known to be different, against the CPU target."""
    model, feeds = case.frozen()
    if any(re.search(pattern, case.name) for pattern in DIFFERENT):
        return case.name, Trial(model, [feeds])
    return case.name, Trial(model, [feeds], [case.outputs], _closeness(case))  # type: ignore[list-item]


def _closeness(case: Case) -> Check:
    """As near to the case's outputs as is demanded of the CPU target."""

    def check(got: Array, wanted: Array) -> str:
        if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            return f"is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
        rtol = max(case.rtol, HALF_TOLERANCE.get(got.dtype.name, 0.0))
        return "" if np.allclose(got, wanted, rtol, case.atol, equal_nan=True) else difference(got, wanted) or "differs"

    return check


def _has_floats(model: onnx.ModelProto) -> bool:
    return any(i.type.tensor_type.elem_type == TensorProto.FLOAT for i in model.graph.input)


def _half_trial(case: Case, dtype: str) -> tuple[str, Trial]:
    model, feeds = case.frozen()
    return f"{case.name} {dtype}", Trial(with_halves(model, dtype), [{n: as_half(a, dtype) for n, a in feeds.items()}])


# Layers


def test_layers(dtype: str, names: list[str]) -> None:
    """Against the CPU target, with each size of their open dimensions."""
    expect_right({f"{name} {dtype}": trial_of(name, dtype) for name in names})


# Wrong indices


def _gathered(op: str, indices: str, output: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 21]> m (float[N, 5] x, int64[{indices}] i) => (float[{output}] y)'
    return onnx.parser.parse_model(f"{text} {{ a = Relu (x) y = {op} <axis = 0> (a, i) }}")


@pytest.mark.parametrize(
    ("op", "indices", "output", "shape"), [("Gather", "K", "K, 5", (40,)), ("GatherElements", "K, 5", "K, 5", (40, 5))]
)
@pytest.mark.parametrize("wrong", [7, -8, 1 << 40])
def test_a_wrong_index_is_told_as_on_a_cpu(
    op: str, indices: str, output: str, shape: tuple[int, ...], wrong: int
) -> None:
    model = _gathered(op, indices, output)
    good = {"x": np.ones((7, 5), np.float32), "i": np.arange(-7, 7).repeat(20)[: np.prod(shape)].reshape(shape)}
    bad = {**good, "i": good["i"].copy()}
    bad["i"].flat[-1] = wrong
    cpu, device = polycomp.compile(model, cache=False, jobs=1), run_on_harness(model)
    told = _told(lambda: cpu.run(bad))
    assert str(wrong) in told and f"'{op}" in told
    assert _told(lambda: device.run(bad)) == told
    np.testing.assert_array_equal(device.run(good)["y"], cpu.run(good)["y"])  # nothing of it is left


def _told(run: Callable[[], object]) -> str:
    with pytest.raises(ExecutionError) as caught:
        run()
    return str(caught.value)
