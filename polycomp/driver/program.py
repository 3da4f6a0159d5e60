"""A lowered graph as a Program: kernel calls on planned memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from polycomp.driver.kernel import CompiledKernel
from polycomp.driver.lower import Call, Lowered, symbol_ranges, value_type
from polycomp.driver.memory import Block, Lifetime, MemoryPlan, plan_memory
from polycomp.driver.work import known, product
from polycomp.expr import Expr, Var, substitute
from polycomp.loops.program import Operand, Program, Step, Storage, Workspace
from polycomp.target import ALIGNMENT
from polycomp.te import Dim

Weight = tuple[int, np.ndarray[Any, Any]]
"""A byte offset, and the array that lies there."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every value lives. ``weights`` are in order of their offsets; ``weight_bytes`` is their end."""

    operands: Mapping[str, Operand]
    plan: MemoryPlan
    blocks: tuple[Block, ...]
    weights: tuple[Weight, ...]
    weight_bytes: int


def lay_out(lowered: Lowered) -> Layout:
    """Give every value that a kernel reads or writes its place."""
    graph, places = lowered.graph, lowered.places
    operands: dict[str, Operand] = {}
    for position, name in enumerate(graph.inputs):
        operands[name] = Operand(Storage.INPUT, position)
    for position, name in enumerate(graph.outputs):
        operands[places.find(name)[0]] = Operand(Storage.OUTPUT, position)
    weights, weight_bytes = _place_weights(lowered, operands)
    blocks = _blocks(lowered, operands)
    plan = plan_memory(blocks, symbol_ranges(graph))
    for name, offset in plan.offsets.items():
        operands[name] = Operand(Storage.ARENA, offset=offset)
    operands |= {name: _within(operands, *places.find(name)) for name in _shared(lowered)}
    return Layout(operands, plan, blocks, weights, weight_bytes)


def _shared(lowered: Lowered) -> list[str]:
    """The values without memory of their own that a kernel reads or writes."""
    used = dict.fromkeys(name for call in lowered.calls for name in (*call.inputs, *call.outputs))
    return [name for name in used if name in lowered.places.at]


def _within(operands: Mapping[str, Operand], root: str, offset: Dim) -> Operand:
    whole = operands[root]
    return dataclasses.replace(whole, offset=known(whole.offset + offset))


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
        chosen_from=call.chosen_from,
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
        root, _ = lowered.places.find(name)
        if root not in constants or root in operands:
            continue
        array = np.ascontiguousarray(constants[root])
        if id(constants[root]) not in offsets:
            offsets[id(constants[root])] = end
            weights.append((end, array))
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        operands[root] = Operand(Storage.WEIGHT, offset=offsets[id(constants[root])])
    return tuple(weights), end


def _blocks(lowered: Lowered, placed: Mapping[str, Operand]) -> tuple[Block, ...]:
    """One per value with memory of its own that kernels write and that has no place yet."""
    blocks: dict[str, list[Lifetime]] = {}
    for name, (first, last) in _lives(lowered).items():
        root, offset = lowered.places.find(name)
        if root not in placed:
            blocks.setdefault(root, []).append(Lifetime(name, _bytes(lowered, name), first, last, offset))
    return tuple(Block(root, _bytes(lowered, root), tuple(tensors)) for root, tensors in blocks.items())


def _lives(lowered: Lowered) -> dict[str, tuple[int, int]]:
    """The steps that write and last read each value that a kernel writes; what shares its memory is read of it."""
    lives: dict[str, tuple[int, int]] = {}
    for position, call in enumerate(lowered.calls):
        read = [made for name in call.inputs for made in lowered.places.written(name)]
        lives |= {name: (lives[name][0], position) for name in read if name in lives}
        lives |= dict.fromkeys(call.outputs, (position, position))
    return lives


def _bytes(lowered: Lowered, name: str) -> Dim:
    kind = value_type(lowered.graph, name)
    return product((*kind.shape, kind.dtype.bytes))
