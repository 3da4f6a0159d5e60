"""What a cost model is told of a schedule: its decisions, and what its loops say of vectors, reuse and footprints.

Footprints follow the usual model of a nest: the largest inner part whose data fit a cache loads these once each time it
is run (as in Zheng et al., "Ansor", OSDI 2020, whose features of innermost statements these are a small part of).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from polycomp.decisions import Decision, Value
from polycomp.expr import Expr, Var, bounds, const, free_vars, substitute, wrap
from polycomp.poly.accesses import Access, reads_of, write_of
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope, walk
from polycomp.target import Target

Features = Mapping[str, float]

_IN_REGISTERS = (LoopKind.UNROLL, LoopKind.VECTOR)


def features_of(kernel: Kernel, made: Sequence[Decision], target: Target) -> Features:
    """Numbers by name. Those of loops are of the statement that is executed most often."""
    found = dict(_decision_features(made))
    hot = max(_leaves(kernel), key=lambda item: _instances(item[1]), default=None)
    if hot is not None:
        found |= _Nest(kernel, *hot, target).features()
    return found


def _decision_features(made: Sequence[Decision]) -> Iterator[tuple[str, float]]:
    """By the decisions' names without the tensors': these differ between kernels."""
    seen: Counter[str] = Counter()
    for decision in made:
        what = decision.name.rpartition(".")[2]
        seen[what] += 1
        name = f"{what}.{seen[what]}"
        if isinstance(decision.value, tuple):
            for position, part in enumerate(decision.value):
                yield f"{name}.{position}", _number(part, ())
        else:
            yield name, _number(decision.value, decision.alternatives)


def _number(value: Value, alternatives: Sequence[Value]) -> float:
    if isinstance(value, str):
        return float(sorted(map(str, alternatives)).index(value))
    assert not isinstance(value, tuple)
    return math.log2(1 + value)


def _leaves(kernel: Kernel) -> Iterator[tuple[Leaf, tuple[Node, ...]]]:
    for node, path in walk(kernel.tree):
        if isinstance(node, Leaf):
            yield node, path


def _loops(path: Sequence[Node]) -> list[Loop]:
    return [node for node in path if isinstance(node, Loop)]


def _extent(loop: Loop) -> int:
    return loop.extent if isinstance(loop.extent, int) else 1


def _instances(path: Sequence[Node]) -> float:
    return float(math.prod(map(_extent, _loops(path))))


class _Nest:
    """One statement and the loops around it, outermost first."""

    def __init__(self, kernel: Kernel, leaf: Leaf, path: Sequence[Node], target: Target) -> None:
        self.loops, self.target = _loops(path), target
        statement = kernel.statements[leaf.statement]
        point: dict[Var, Expr] = dict(zip(statement.iters, leaf.point, strict=True))
        registers = {n.tensor for n in path if isinstance(n, Allocate) and n.scope is Scope.REGISTER}
        accesses = (write_of(statement), *reads_of(statement))
        self.accesses = [(a, [substitute(i, point) for i in a.indices]) for a in accesses]
        self.memory = [(a, i) for a, i in self.accesses if a.tensor not in registers]
        self.lanes = target.lanes(statement.tensor.dtype.bytes)

    def features(self) -> dict[str, float]:
        kinds = {kind: [_extent(x) for x in self.loops if x.kind is kind] for kind in LoopKind}
        vector = math.prod(kinds[LoopKind.VECTOR])
        tile = next((n for n, x in enumerate(self.loops) if self._all_in_registers(n)), len(self.loops))
        total = _instances(self.loops)
        found = {
            "total": math.log2(max(1.0, total)),
            "vectors": float(-(-vector // self.lanes)),
            "lanes_used": vector / (-(-vector // self.lanes) * self.lanes),
            "unrolled": math.log2(math.prod(kinds[LoopKind.UNROLL])),
            "shared": math.log2(max(1, math.prod(kinds[LoopKind.PARALLEL]))),
            "inner": math.log2(_extent(self.loops[tile - 1])) if tile else 0.0,
            "tile_elements": math.log2(max(1.0, self._elements(self.accesses, tile))),
            "loads_per_step": self._elements(self.memory, tile) / max(1.0, _instances(self.loops[tile:])),
        }
        footprints = [self._bytes(level) for level in range(len(self.loops) + 1)]
        for name, size in (("l1", self.target.l1_bytes), ("l2", self.target.l2_bytes)):
            fitting = next((n for n, b in enumerate(footprints) if b <= size), len(self.loops))
            traffic = _instances(self.loops[:fitting]) * footprints[fitting]
            found[f"{name}_traffic"] = math.log2(max(1.0, traffic))
            found[f"{name}_filled"] = footprints[fitting] / size
        return found

    def _all_in_registers(self, level: int) -> bool:
        return all(x.kind in _IN_REGISTERS for x in self.loops[level:])

    def _elements(self, accesses: Sequence[tuple[Access, Sequence[Expr]]], level: int) -> float:
        return sum(self._region(indices, level) for _, indices in accesses)

    def _bytes(self, level: int) -> float:
        """What one run of the loops from ``level`` on reads and writes in memory."""
        return sum(self._region(indices, level) * a.tensor.dtype.bytes for a, indices in self.memory)

    def _region(self, indices: Sequence[Expr], level: int) -> float:
        """Elements in the box around all that the loops from ``level`` on reach, with the outer ones at their start."""
        ranges = {x.var: (0, _extent(x) - 1) for x in self.loops[level:]}
        return math.prod(_width(index, ranges) for index in indices)


def _width(index: Expr, ranges: Mapping[Var, tuple[int, int]]) -> float:
    fixed = {v: const(0) for v in free_vars(wrap(index)) if v not in ranges}
    low, high = bounds(substitute(wrap(index), fixed), ranges)
    return 1.0 if low is None or high is None else float(high - low + 1)
