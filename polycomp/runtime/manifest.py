"""The manifest of a module: everything about it except code and weights, kept as JSON in the module file."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polycomp.dtypes import as_dtype
from polycomp.errors import ModuleFileError, PolycompError
from polycomp.runtime import dims
from polycomp.runtime.dims import Dimension

if TYPE_CHECKING:
    from polycomp.runtime.cuda.plan import DevicePlan


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output. ``dtype`` is numpy's name; ``shape`` has an int, or text over the symbols, per dimension."""

    name: str
    dtype: str
    dims: tuple[Dimension, ...]

    @property
    def shape(self) -> tuple[int | str, ...]:
        return tuple(dims.to_text(d) for d in self.dims)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class SymbolSpec:
    """A size bound at run time, within inclusive bounds (``maximum`` None: unbounded)."""

    name: str
    minimum: int
    maximum: int | None


@dataclasses.dataclass(frozen=True)
class ConditionSpec:
    """What the sizes of a run must satisfy: ``holds`` is not 0, else ``problem`` is what ``node`` finds wrong."""

    node: str
    holds: Dimension
    problem: str


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """One kernel call: the model's nodes it computes and its work, which may depend on symbols. ``chosen_from`` are the
    tensors of which it takes elements at indices that are data."""

    symbol: str
    sources: tuple[str, ...]
    flops: Dimension
    bytes: Dimension
    chosen_from: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """``arch`` and ``features`` are what the code needs of a CPU; ``threads`` the number it was made for (0: any).

    Of a module for GPUs ``arch`` is ``"cuda"`` and ``features`` are the architectures that it has code for; ``device``
    is the plan of its runs (None: for a CPU). ``metadata`` is for people: anything that is JSON.
    """

    name: str
    arch: str
    features: tuple[str, ...]
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: tuple[SymbolSpec, ...]
    conditions: tuple[ConditionSpec, ...]
    steps: tuple[StepSpec, ...]
    arena_bytes: Dimension
    weight_bytes: int
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    device: DevicePlan | None = None

    def to_json(self) -> bytes:
        fields = dataclasses.asdict(self)
        if self.device is None:
            del fields["device"]
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def parse_manifest(data: bytes, label: str) -> Manifest:
    """Read :meth:`Manifest.to_json`'s text back.

    Raises :class:`ModuleFileError`, naming the file by ``label``, when it is not well formed.
    """
    try:
        return _manifest(json.loads(data))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, PolycompError) as e:
        raise ModuleFileError(f"{label} has a malformed manifest: {type(e).__name__}: {e}") from e


def _manifest(raw: Mapping[str, Any]) -> Manifest:
    symbols = tuple(_symbol(s) for s in raw["symbols"])
    known = frozenset(s.name for s in symbols)
    return Manifest(
        name=str(raw["name"]),
        arch=str(raw["arch"]),
        features=tuple(map(str, raw["features"])),
        threads=int(raw["threads"]),
        inputs=tuple(_tensor(t, known) for t in raw["inputs"]),
        outputs=tuple(_tensor(t, known) for t in raw["outputs"]),
        symbols=symbols,
        conditions=tuple(_condition(c, known) for c in raw["conditions"]),
        steps=tuple(_step(s, known) for s in raw["steps"]),
        arena_bytes=dims.check(raw["arena_bytes"], known),
        weight_bytes=int(raw["weight_bytes"]),
        metadata=dict(raw["metadata"]),
        device=_device(raw.get("device"), known),
    )


def _device(raw: Mapping[str, Any] | None, symbols: frozenset[str]) -> DevicePlan | None:
    if raw is None:
        return None
    # What modules for a CPU do without is not imported for them.
    plan: DevicePlan = importlib.import_module("polycomp.runtime.cuda.plan").parse_plan(raw, symbols)
    return plan


def _symbol(raw: Mapping[str, Any]) -> SymbolSpec:
    maximum = raw["maximum"]
    return SymbolSpec(str(raw["name"]), int(raw["minimum"]), None if maximum is None else int(maximum))


def _tensor(raw: Mapping[str, Any], symbols: frozenset[str]) -> TensorSpec:
    shape = tuple(dims.check(d, symbols) for d in raw["dims"])
    return TensorSpec(str(raw["name"]), as_dtype(raw["dtype"]).value, shape)


def _condition(raw: Mapping[str, Any], symbols: frozenset[str]) -> ConditionSpec:
    return ConditionSpec(str(raw["node"]), dims.check(raw["holds"], symbols), str(raw["problem"]))


def _step(raw: Mapping[str, Any], symbols: frozenset[str]) -> StepSpec:
    flops, moved = dims.check(raw["flops"], symbols), dims.check(raw["bytes"], symbols)
    chosen_from = tuple(map(str, raw["chosen_from"]))
    return StepSpec(str(raw["symbol"]), tuple(map(str, raw["sources"])), flops, moved, chosen_from)
