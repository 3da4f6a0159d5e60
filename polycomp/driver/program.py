"""A lowered graph as a Program: kernel calls on planned memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from polycomp.driver.kernel import CompiledKernel
from polycomp.driver.lower import Call, Lowered, symbol_ranges, value_type
from polycomp.driver.memory import ALIGNMENT, Lifetime, MemoryPlan, plan_memory
from polycomp.driver.work import product
from polycomp.expr import Expr, Var, substitute
from polycomp.loops.program import Operand, Program, Step, Storage, Workspace
from polycomp.te import Dim

Weight = tuple[int, np.ndarray[Any, Any]]
"""A byte offset, and the array that lies there."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every value lives. ``weights`` are in order of their offsets; ``weight_bytes`` is their end."""

    operands: Mapping[str, Operand]
    plan: MemoryPlan
    lifetimes: tuple[Lifetime, ...]
    weights: tuple[Weight, ...]
    weight_bytes: int


def lay_out(lowered: Lowered) -> Layout:
    """Give every value that a kernel reads or writes its place."""
    graph, aliases = lowered.graph, lowered.aliases
    operands: dict[str, Operand] = {}
    for position, name in enumerate(graph.inputs):
        operands[name] = Operand(Storage.INPUT, position)
    for position, name in enumerate(graph.outputs):
        operands[aliases.get(name, name)] = Operand(Storage.OUTPUT, position)
    weights, weight_bytes = _place_weights(lowered, operands)
    lifetimes = _lifetimes(lowered, operands)
    plan = plan_memory(lifetimes, symbol_ranges(graph))
    for name, offset in plan.offsets.items():
        operands[name] = Operand(Storage.ARENA, offset=offset)
    operands |= {name: operands[root] for name, root in aliases.items() if root in operands}
    return Layout(operands, plan, lifetimes, weights, weight_bytes)


def build_program(lowered: Lowered, layout: Layout, kernels: Mapping[str, CompiledKernel]) -> Program:
    """The calls on the places of their values, with sizes and workspaces filled in. ``kernels`` are by symbol."""
    graph = lowered.graph
    steps = tuple(_step(call, layout.operands, kernels[call.symbol]) for call in lowered.calls)
    sizes = tuple(s.var for s in graph.symbols)
    return Program(graph.name, sizes, len(graph.inputs), len(graph.outputs), steps, layout.plan.bytes)


def _step(call: Call, operands: Mapping[str, Operand], kernel: CompiledKernel) -> Step:
    given = call.kernel.parameters
    workspace = Workspace(_apply(kernel.workspace.shared, given), _apply(kernel.workspace.per_thread, given))
    return Step(
        symbol=call.symbol,
        operands=tuple(operands[name] for name in (*call.inputs, *call.outputs)),
        sizes=tuple(given[size] for size in kernel.sizes),
        workspace=workspace,
        sources=call.sources,
        flops=call.flops,
        bytes=call.bytes,
    )


def _apply(dim: Dim, values: Mapping[Var, Var]) -> Dim:
    return substitute(dim, values) if isinstance(dim, Expr) else dim


def _place_weights(lowered: Lowered, operands: dict[str, Operand]) -> tuple[tuple[Weight, ...], int]:
    """Lay the constants that kernels read one after the other; those that are the same array once."""
    constants = lowered.graph.constants
    offsets: dict[int, int] = {}
    weights: list[Weight] = []
    end = 0
    for name in dict.fromkeys(n for call in lowered.calls for n in call.inputs):
        root = lowered.aliases.get(name, name)
        if root not in constants or root in operands:
            continue
        array = np.ascontiguousarray(constants[root])
        if id(constants[root]) not in offsets:
            offsets[id(constants[root])] = end
            weights.append((end, array))
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        operands[root] = Operand(Storage.WEIGHT, offset=offsets[id(constants[root])])
    return tuple(weights), end


def _lifetimes(lowered: Lowered, placed: Mapping[str, Operand]) -> tuple[Lifetime, ...]:
    """One per value that a kernel writes and that has no place yet; reads of its aliases are reads of it."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for position, call in enumerate(lowered.calls):
        for name in call.outputs:
            first[name] = last[name] = position
        for name in call.inputs:
            last[lowered.aliases.get(name, name)] = position
    return tuple(Lifetime(name, _bytes(lowered, name), first[name], last[name]) for name in first if name not in placed)


def _bytes(lowered: Lowered, name: str) -> Dim:
    kind = value_type(lowered, name)
    return product((*kind.shape, kind.dtype.bytes))
