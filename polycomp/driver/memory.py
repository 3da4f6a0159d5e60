"""The memory plan: where in the arena each intermediate tensor lives, so that tensors never alive together share bytes.

Known sizes are placed greedily, the largest first, each at the lowest offset where it overlaps no tensor alive at the
same time ("greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
Sizes that are bound at run time cannot be ordered in general: tensors then take turns on slots of one size expression.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.driver.work import known
from polycomp.expr import Expr, Interval, Var, compare, prove
from polycomp.te import Dim

ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class Lifetime:
    """A tensor of ``bytes`` that is written in step ``first`` and read for the last time in step ``last``."""

    name: str
    bytes: Dim
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive in some step."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets by tensor, multiples of 64, in an arena of ``bytes``."""

    offsets: Mapping[str, Dim]
    bytes: Dim


def plan_memory(lifetimes: Sequence[Lifetime], ranges: Mapping[Var, Interval]) -> MemoryPlan:
    """Place every tensor. ``ranges`` are inclusive bounds of the variables in symbolic sizes.

    Symbolic tensors come after the ones of known size, so that the latter keep constant offsets.
    """
    fixed = [t for t in lifetimes if not isinstance(t.bytes, Expr)]
    symbolic = [t for t in lifetimes if isinstance(t.bytes, Expr)]
    offsets, end = _place_by_size(fixed)
    slots = _share_slots(symbolic, ranges)
    total: Dim = end
    for slot in slots:
        offsets.update(dict.fromkeys(slot.names, total))
        total = known(total + align(slot.bytes))
    return MemoryPlan(offsets, total)


def align(size: Dim) -> Dim:
    """``size`` rounded up to a multiple of 64."""
    return known((size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT)


def _place_by_size(tensors: Sequence[Lifetime]) -> tuple[dict[str, Dim], int]:
    offsets: dict[str, Dim] = {}
    end = 0
    placed: list[tuple[int, int, Lifetime]] = []  # (begin, end, tensor), ordered by begin
    for tensor in sorted(tensors, key=lambda t: (-_int(t.bytes), t.first, t.name)):
        size = _int(align(tensor.bytes))
        begin = 0
        for other_begin, other_end, other in placed:
            if not other.overlaps(tensor):
                continue
            if begin + size <= other_begin:
                break
            begin = max(begin, other_end)
        offsets[tensor.name] = begin
        placed.append((begin, begin + size, tensor))
        placed.sort(key=lambda p: p[0])
        end = max(end, begin + size)
    return offsets, end


def _int(size: Dim) -> int:
    if isinstance(size, Expr):
        raise TypeError(f"the size {size} is not known")
    return size


@dataclasses.dataclass
class _Slot:
    bytes: Dim
    free_after: int  # the step that last uses it
    names: list[str]


def _share_slots(tensors: Sequence[Lifetime], ranges: Mapping[Var, Interval]) -> list[_Slot]:
    slots: list[_Slot] = []
    for tensor in sorted(tensors, key=lambda t: t.first):
        free = [s for s in slots if s.free_after < tensor.first]
        slot = next((s for s in free if _fits(tensor.bytes, s.bytes, ranges)), None)
        if slot is None:
            slot = next((s for s in free if _fits(s.bytes, tensor.bytes, ranges)), None)
            if slot is None:
                slot = _Slot(tensor.bytes, -1, [])
                slots.append(slot)
            slot.bytes = tensor.bytes
        slot.free_after = tensor.last
        slot.names.append(tensor.name)
    return slots


def _fits(size: Dim, room: Dim, ranges: Mapping[Var, Interval]) -> bool:
    """Whether ``size <= room`` surely holds."""
    return size == room or prove(compare("le", size, room), ranges) is True
