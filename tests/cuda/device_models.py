"""Models on the harness: many compiled together, run in both orders, and compared with what they ought to compute."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from cuda_harness import CpuKernels, HarnessDevice, HarnessError, Order
from cuda_harness.model import device_parts, kernels_of

import polycomp
from polycomp.errors import PolycompError
from polycomp.runtime import ModuleParts
from polycomp.runtime.cuda.module import CudaModule
from polycomp.runtime.image import assemble

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Check = Callable[[Array, Array], str]
"""Says what is wrong with a result, given the right one; "" when nothing is."""

KNOWN: Mapping[str, str] = MappingProxyType({})
"""What is not right yet: patterns of trials' names, with the reason. A trial that is right is not to be listed."""

ORDERS = (Order.FORWARD, Order.BACKWARD)
TOLERANCES: Mapping[str, float] = MappingProxyType(
    {"bfloat16": 2e-2, "float16": 4e-3, "float32": 1e-4, "float64": 1e-10}
)
"""The largest error of an element, as a share of the largest magnitude: sums are added up in another order."""

_TOGETHER = 60
"""Kernels in a translation unit: g++ reads its headers once for all."""


# Compiling


@dataclasses.dataclass(frozen=True)
class Compiled:
    """``modules`` by the name of their model, each on a device of its own, and why there is none of the others."""

    modules: Mapping[str, CudaModule]
    failed: Mapping[str, Exception]


Compiler = Callable[[Mapping[str, Any]], Compiled]
"""Compiles models by name: ONNX models or graphs."""


@dataclasses.dataclass(frozen=True)
class Lowered:
    """Modules' parts and the CUDA C of their kernels, by the name of the model, and why there is none of the others."""

    parts: Mapping[str, ModuleParts]
    sources: Mapping[str, Mapping[str, str]]
    failed: Mapping[str, Exception]

    def all_sources(self) -> dict[str, str]:
        """By symbol: equal kernels of several models have the same."""
        return {symbol: source for sources in self.sources.values() for symbol, source in sources.items()}


def lower_together(models: Mapping[str, Any]) -> Lowered:
    """Compile models as far as CUDA C."""
    parts, sources, failed = {}, {}, {}
    for name, model in models.items():
        try:
            parts[name], sources[name] = device_parts(model)
        except Exception as error:  # noqa: BLE001  (whatever it is, the other models are of interest too)
            failed[name] = error
    return Lowered(parts, sources, failed)


def compile_together(models: Mapping[str, Any], races: bool = False) -> Compiled:
    """Compile models, all their kernels in a few runs of g++."""
    lowered = lower_together(models)
    built = _build(lowered.all_sources(), races)
    modules, failed = {}, dict(lowered.failed)
    for name, sources in lowered.sources.items():
        units = {symbol: built[symbol] for symbol in sources}
        rejected = [made for made in units.values() if isinstance(made, HarnessError)]
        if rejected:
            failed[name] = rejected[0]
        else:
            modules[name] = CudaModule(assemble(lowered.parts[name]), HarnessDevice(units))  # type: ignore[arg-type]
    return Compiled(modules, failed)


def compile_for_races(models: Mapping[str, Any]) -> Compiled:
    """Compile models so that threads that touch the same memory with no barrier in between are found."""
    return compile_together(models, races=True)


def _build(sources: Mapping[str, str], races: bool) -> dict[str, CpuKernels | HarnessError]:
    """The kernels that CUDA C by symbol defines, or what g++ says against them."""
    built: dict[str, CpuKernels | HarnessError] = {}
    symbols = list(sources)
    for first in range(0, len(symbols), _TOGETHER):
        built |= _build_unit({s: sources[s] for s in symbols[first : first + _TOGETHER]}, races)
    return built


def _build_unit(sources: dict[str, str], races: bool) -> dict[str, CpuKernels | HarnessError]:
    try:
        return dict.fromkeys(sources, kernels_of(sources, races))
    except HarnessError as error:
        if len(sources) == 1:
            return dict.fromkeys(sources, error)
    return {s: made for symbol in sources for s, made in _build_unit({symbol: sources[symbol]}, races).items()}


def run_in(module: CudaModule, order: Order, feeds: Arrays) -> list[Array]:
    """The outputs, with the threads in ``order``."""
    assert isinstance(module.device, HarnessDevice)
    module.device.order = order
    return list(module.run(feeds).values())


# Trying


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model to be run on each of ``feeds``. ``wanted`` are its outputs for each; None: those of the CPU target."""

    model: Any
    feeds: Sequence[Arrays]
    wanted: Sequence[Sequence[Array]] | None = None
    check: Check | None = None

    def right(self) -> Sequence[Sequence[Array]]:
        if self.wanted is not None:
            return self.wanted
        module = polycomp.compile(self.model, threads=1, cache=False, jobs=1)
        return [list(module.run(feeds).values()) for feeds in self.feeds]


def expect_right(trials: Mapping[str, Trial], compiler: Compiler = compile_together) -> None:
    """Compile and run all. Models that the CPU target refuses are to be refused in the same words.

    Fails with all that is wrong; where only what is :data:`KNOWN` is, the test fails as expected.
    """
    found = problems_of(trials, compiler)
    listed = {name: reason for name in trials for pattern, reason in KNOWN.items() if re.search(pattern, name)}
    wrong = {name: problem for name, problem in found.items() if name not in listed}
    wrong |= {name: "is listed as not right yet, but is right" for name in listed if name not in found}
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())
    if listed:
        pytest.xfail("; ".join(f"{name}: {reason}" for name, reason in listed.items()))


def problems_of(trials: Mapping[str, Trial], compiler: Compiler = compile_together) -> dict[str, str]:
    """What is wrong, by the name of the trial."""
    compiled = compiler({name: trial.model for name, trial in trials.items()})
    problems = {name: _unexpected(error, trials[name].model) for name, error in compiled.failed.items()}
    for name, module in compiled.modules.items():
        trial = trials[name]
        runs = zip(trial.feeds, trial.right(), strict=True)
        problems[name] = next(filter(None, (problem_of(module, f, right, trial.check) for f, right in runs)), "")
    return {name: problem for name, problem in problems.items() if problem}


def _unexpected(error: Exception, model: Any) -> str:
    """What is said against a model; "" when that is just what the CPU target says."""
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, PolycompError):
        try:
            polycomp.compile(model, threads=1, cache=False, jobs=1)
        except PolycompError as same:
            return "" if told == f"{type(same).__name__}: {same}" else told
    return told


def problem_of(module: CudaModule, feeds: Arrays, right: Sequence[Array], check: Check | None = None) -> str:
    """What a module does wrong, in one of the orders; "" when its outputs are right."""
    for order in ORDERS:
        try:
            got = run_in(module, order, feeds)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told)
            return f"{order.name}: {type(error).__name__}: {error}"
        for number, (result, wanted) in enumerate(zip(got, right, strict=True)):
            problem = (check or difference)(result, wanted)
            if problem:
                return f"{order.name}: output {number} {problem}"
    return ""


def difference(got: Array, wanted: Array) -> str:
    """How far a result is from another; "" when near enough, or, of integers, the same."""
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return f"is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
    if got.dtype.name not in TOLERANCES:
        wrong = int(np.sum(got != wanted))
        return f"differs in {wrong} of {got.size} elements" if wrong else ""
    result, right = got.astype(np.float64), wanted.astype(np.float64)
    scale = float(np.max(np.abs(right[np.isfinite(right)]), initial=1e-3))
    near = np.isclose(result, right, 0, TOLERANCES[got.dtype.name] * scale, equal_nan=True)
    if near.all():
        return ""
    with np.errstate(invalid="ignore"):
        most = np.max(np.abs(result - right)[~near])
    return f"differs in {np.sum(~near)} of {near.size} elements, by up to {most:.3g} where the largest is {scale:.3g}"
