"""Checking the inputs of a run against a module's specs, and finding the sizes that they imply."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.errors import InputError
from polycomp.runtime import dims
from polycomp.runtime.dims import Dimension
from polycomp.runtime.manifest import Manifest, TensorSpec
from polycomp.runtime.memory import alignment_for

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]

_MOST_TOLD = 3


@dataclasses.dataclass(frozen=True)
class OutputPlan:
    shape: Shape
    dtype: np.dtype[Any]
    nbytes: int

    @functools.cached_property
    def alignment(self) -> int:
        """Of the array, in bytes."""
        return alignment_for(self.nbytes)


@dataclasses.dataclass(frozen=True)
class Binding:
    """What a run with inputs of certain shapes needs. ``sizes`` are in the order of the manifest's symbols."""

    sizes: tuple[int, ...]
    outputs: tuple[OutputPlan, ...]

    @property
    def output_bytes(self) -> int:
        return sum(o.nbytes for o in self.outputs)


def bind(manifest: Manifest, inputs: Mapping[str, Any]) -> Binding:
    """Check ``inputs`` and evaluate all sizes.

    Raises :class:`InputError` that names everything wrong with them together.
    """
    problems = _name_problems(manifest, inputs)
    present = [(s, inputs[s.name]) for s in manifest.inputs if s.name in inputs]
    fitting = []
    for spec, value in present:
        found = _type_problem(spec, value)
        if found:
            problems.append(found)
        else:
            fitting.append((spec, value))
    sizes = _bind_symbols(manifest, fitting, problems)
    problems += [p for spec, value in fitting for p in _size_problems(spec, value, sizes)]
    if problems:
        raise InputError(f"wrong inputs for {manifest.name!r}: " + "; ".join(problems))
    _check_conditions(manifest, sizes)
    ordered = tuple(sizes[s.name] for s in manifest.symbols)
    return Binding(ordered, tuple(_output(o, sizes) for o in manifest.outputs))


def _name_problems(manifest: Manifest, inputs: Mapping[str, Any]) -> list[str]:
    known = [s.name for s in manifest.inputs]
    problems = [f"input {s} is missing" for s in manifest.inputs if s.name not in inputs]
    unknown = [name for name in inputs if name not in known]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        problems.append(f"no input is called {listed}; the inputs are {', '.join(known) or 'none'}")
    return problems


def _type_problem(spec: TensorSpec, value: Any) -> str | None:
    if not isinstance(value, np.ndarray):
        return f"{spec.name!r} is a {type(value).__name__}, not a numpy array"
    wrong = []
    if value.dtype != as_dtype(spec.dtype).numpy:
        wrong.append(f"is {value.dtype}, expected {spec.dtype}")
    if value.ndim != len(spec.dims):
        wrong.append(f"has {value.ndim} dimensions, expected {spec}")
    return f"{spec.name!r} {' and '.join(wrong)}" if wrong else None


def _bind_symbols(manifest: Manifest, arrays: list[tuple[TensorSpec, Array]], problems: list[str]) -> dict[str, int]:
    """Values of the symbols that are a dimension by themselves; contradictions are added to ``problems``."""
    sizes: dict[str, int] = {}
    where: dict[str, str] = {}
    for spec, array in arrays:
        for axis, (dim, size) in enumerate(zip(spec.dims, array.shape, strict=True)):
            if not isinstance(dim, str):
                continue
            place = f"dimension {axis} of {spec.name!r}"
            if sizes.setdefault(dim, size) != size:
                problems.append(f"{dim} is {sizes[dim]} by {where[dim]}, but {size} by {place}")
            where.setdefault(dim, place)
    problems += [
        f"{s.name} is {sizes[s.name]} by {where[s.name]}, outside of its range {_range(s.minimum, s.maximum)}"
        for s in manifest.symbols
        if s.name in sizes and not (s.minimum <= sizes[s.name] and (s.maximum is None or sizes[s.name] <= s.maximum))
    ]
    return sizes


def _check_conditions(manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """Raise InputError naming the nodes that cannot work on tensors of these sizes."""
    failed = [c for c in manifest.conditions if not dims.evaluate(c.holds, sizes)]
    if failed:
        values = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        found = "; ".join(f"{c.node}: {c.problem}" for c in failed[:_MOST_TOLD])
        more = f"; and {len(failed) - _MOST_TOLD} more" if len(failed) > _MOST_TOLD else ""
        raise InputError(f"{manifest.name!r} cannot be run with {values}: {found}{more}")


def _range(minimum: int, maximum: int | None) -> str:
    return f"{minimum}.." if maximum is None else f"{minimum}..{maximum}"


def _size_problems(spec: TensorSpec, array: Array, sizes: Mapping[str, int]) -> list[str]:
    """Dimensions that are not a lone symbol and differ. Those that depend on an unbound symbol are skipped."""
    return [
        f"dimension {axis} of {spec.name!r} is {size}, expected {_expected(dim, sizes)}"
        for axis, (dim, size) in enumerate(zip(spec.dims, array.shape, strict=True))
        if not isinstance(dim, str) and dims.symbols_of(dim) <= sizes.keys() and dims.evaluate(dim, sizes) != size
    ]


def _expected(dim: Dimension, sizes: Mapping[str, int]) -> str:
    value = dims.evaluate(dim, sizes)
    return str(value) if isinstance(dim, int) else f"{value} = {dims.to_text(dim)}"


def _output(spec: TensorSpec, sizes: Mapping[str, int]) -> OutputPlan:
    shape = tuple(max(0, dims.evaluate(d, sizes)) for d in spec.dims)
    dtype = as_dtype(spec.dtype).numpy
    count = 1
    for size in shape:
        count *= size
    return OutputPlan(shape, dtype, count * dtype.itemsize)
