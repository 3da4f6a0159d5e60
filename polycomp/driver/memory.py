"""The memory plan: where in the arena each intermediate tensor lives, so that tensors never alive together share bytes.

Tensors that must lie side by side, the parts of a concatenation, are placed together, as a block. Blocks of known size
are placed greedily, the largest first, each at the lowest offset where it overlaps no tensor alive at the same time
("greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
Sizes that are bound at run time cannot be ordered in general: blocks then take turns on slots of one size expression.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.driver.work import known
from polycomp.expr import Expr, Interval, Var, compare, prove
from polycomp.target import ALIGNMENT
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class Lifetime:
    """A tensor of ``bytes`` that is written in step ``first`` and read for the last time in step ``last``. It lies at
    the byte ``offset``, a multiple of 64, of its block."""

    name: str
    bytes: Dim
    first: int
    last: int
    offset: Dim = 0

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive in some step."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Block:
    """``bytes`` in one piece, in which ``tensors`` lie side by side: one, or the parts of a concatenation. Where one
    of them is not alive, its bytes are free."""

    name: str
    bytes: Dim
    tensors: tuple[Lifetime, ...]

    @property
    def first(self) -> int:
        return min(t.first for t in self.tensors)

    @property
    def last(self) -> int:
        return max(t.last for t in self.tensors)

    @property
    def is_known(self) -> bool:
        """Whether all sizes and offsets are."""
        return not any(
            isinstance(d, Expr) for d in (self.bytes, *(x for t in self.tensors for x in (t.bytes, t.offset)))
        )


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets by block, multiples of 64, in an arena of ``bytes``."""

    offsets: Mapping[str, Dim]
    bytes: Dim


def plan_memory(blocks: Sequence[Block], ranges: Mapping[Var, Interval]) -> MemoryPlan:
    """Place every block. ``ranges`` are inclusive bounds of the variables in symbolic sizes.

    Symbolic blocks come after the ones of known size, so that the latter keep constant offsets; they are alive as long
    as any of their tensors.
    """
    offsets, end = _place_by_size([b for b in blocks if b.is_known])
    slots = _share_slots([b for b in blocks if not b.is_known], ranges)
    total: Dim = end
    for slot in slots:
        offsets.update(dict.fromkeys(slot.names, total))
        total = known(total + align(slot.bytes))
    return MemoryPlan(offsets, total)


def align(size: Dim) -> Dim:
    """``size`` rounded up to a multiple of 64."""
    return known((size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT)


@dataclasses.dataclass(frozen=True)
class _Placed:
    begin: int
    end: int
    tensor: Lifetime


def _place_by_size(blocks: Sequence[Block]) -> tuple[dict[str, Dim], int]:
    offsets: dict[str, Dim] = {}
    placed: list[_Placed] = []
    for block in sorted(blocks, key=lambda b: (-_int(b.bytes), b.first, b.name)):
        begin = _lowest_place(block, placed)
        offsets[block.name] = begin
        for tensor in block.tensors:
            start = begin + _int(tensor.offset)
            placed.append(_Placed(start, start + _int(align(tensor.bytes)), tensor))
    return offsets, max((p.end for p in placed), default=0)


def _lowest_place(block: Block, placed: Sequence[_Placed]) -> int:
    """The lowest offset at which none of the block's tensors meets a placed one that is alive at the same time."""
    taken: list[tuple[int, int]] = []  # between these, exclusively, the block must not begin
    for tensor in block.tensors:
        start, end = _int(tensor.offset), _int(tensor.offset + align(tensor.bytes))
        taken += [(p.begin - end, p.end - start) for p in placed if p.tensor.overlaps(tensor)]
    begin = 0
    for low, high in sorted(taken):
        if begin <= low:
            break
        begin = max(begin, high)
    return begin


def _int(size: Dim) -> int:
    if isinstance(size, Expr):
        raise TypeError(f"the size {size} is not known")
    return size


@dataclasses.dataclass
class _Slot:
    bytes: Dim
    free_after: int  # the step that last uses it
    names: list[str]


def _share_slots(blocks: Sequence[Block], ranges: Mapping[Var, Interval]) -> list[_Slot]:
    slots: list[_Slot] = []
    for block in sorted(blocks, key=lambda b: b.first):
        free = [s for s in slots if s.free_after < block.first]
        slot = next((s for s in free if _fits(block.bytes, s.bytes, ranges)), None)
        if slot is None:
            slot = next((s for s in free if _fits(s.bytes, block.bytes, ranges)), None)
            if slot is None:
                slot = _Slot(block.bytes, -1, [])
                slots.append(slot)
            slot.bytes = block.bytes
        slot.free_after = block.last
        slot.names.append(block.name)
    return slots


def _fits(size: Dim, room: Dim, ranges: Mapping[Var, Interval]) -> bool:
    """Whether ``size <= room`` surely holds."""
    return size == room or prove(compare("le", size, room), ranges) is True
