"""Describing a compiled program in the form that its module file keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Binary, Cast, Compare, Const, Expr, Select, Unary, Var
from polycomp.graph.ir import Condition, Symbol, TensorType
from polycomp.loops.program import Program, Step
from polycomp.runtime.dims import OPERATIONS, Dimension, symbols_of
from polycomp.runtime.manifest import ConditionSpec, Manifest, StepSpec, SymbolSpec, TensorSpec
from polycomp.target import Target
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class ModuleInfo:
    """What a module says about itself, besides its program.

    ``inputs`` and ``outputs`` are in the program's order; ``symbols`` has one for each of the program's sizes.
    ``threads`` is the number of threads it was compiled for (0: any); ``metadata`` is for people: anything that is
    JSON.
    """

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    symbols: tuple[Symbol, ...] = ()
    conditions: tuple[Condition, ...] = ()
    threads: int = 0
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_manifest(program: Program, info: ModuleInfo, weight_bytes: int, target: Target) -> Manifest:
    """The manifest of a program.

    Raises :class:`CompileError` when a size is not integer arithmetic, or a symbol is no input's dimension, so that
    no run could tell its value.
    """
    found = {s.var.name: s for s in info.symbols}
    inputs = tuple(_tensor(name, kind) for name, kind in info.inputs.items())
    symbols = tuple(_symbol(found.get(v.name) or Symbol(v)) for v in program.sizes)
    _check_bound(program, inputs)
    return Manifest(
        name=program.name,
        arch=target.arch,
        features=target.features,
        threads=info.threads,
        inputs=inputs,
        outputs=tuple(_tensor(name, kind) for name, kind in info.outputs.items()),
        symbols=symbols,
        conditions=tuple(_condition(c) for c in info.conditions),
        steps=tuple(_step(s) for s in program.steps),
        arena_bytes=dimension(program.arena_bytes),
        weight_bytes=weight_bytes,
        metadata=dict(info.metadata),
    )


def dimension(dim: Dim) -> Dimension:
    """A size in the manifest's form. Raises :class:`CompileError` when it is not integer arithmetic over symbols."""
    if isinstance(dim, int):
        return dim
    match dim:
        case Const() if not dim.dtype.is_float:
            return int(dim.value)
        case Var():
            return dim.name
        case Binary() | Compare() if dim.op in OPERATIONS:
            return [dim.op, dimension(dim.left), dimension(dim.right)]
        case Select():
            return ["select", dimension(dim.condition), dimension(dim.on_true), dimension(dim.on_false)]
        case Unary(op="neg"):
            return ["sub", 0, dimension(dim.operand)]
        case Unary(op="not"):
            return ["xor", dimension(dim.operand), 1 if dim.dtype is DType.BOOL else -1]
        case Cast() if _keeps_value(dim):
            return dimension(dim.operand)
    raise CompileError(f"the size {dim} is not integer arithmetic over the sizes of the program")


def _keeps_value(e: Cast) -> bool:
    return e.dtype is DType.INT64 and not e.operand.dtype.is_float


def _tensor(name: str, kind: TensorType) -> TensorSpec:
    return TensorSpec(name, kind.dtype.value, tuple(dimension(_simple(d)) for d in kind.shape))


def _simple(dim: Dim) -> Dim:
    """A literal as an int."""
    return int(dim.value) if isinstance(dim, Expr) and isinstance(dim, Const) else dim


def _symbol(symbol: Symbol) -> SymbolSpec:
    return SymbolSpec(symbol.var.name, symbol.minimum, symbol.maximum)


def _condition(condition: Condition) -> ConditionSpec:
    return ConditionSpec(condition.node, dimension(condition.holds), condition.problem)


def _step(step: Step) -> StepSpec:
    return StepSpec(step.symbol, step.sources, dimension(step.flops), dimension(step.bytes), step.chosen_from)


def _check_bound(program: Program, inputs: tuple[TensorSpec, ...]) -> None:
    bound = {d for t in inputs for d in t.dims if isinstance(d, str)}
    free = sorted(v.name for v in program.sizes if v.name not in bound)
    used = {s for t in inputs for d in t.dims for s in symbols_of(d)}
    if free:
        where = "only within an expression" if set(free) <= used else "nowhere"
        raise CompileError(f"the sizes {', '.join(free)} are {where} a dimension of an input, so no run can tell them")
