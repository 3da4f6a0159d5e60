"""A stage and those that are computed for it alone: which axes they have in common, and which they walk along."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from polycomp.expr import Expr, Load, Reduce, Var, free_vars, loads
from polycomp.schedules.library.analysis import constant, is_reduction, stride_of
from polycomp.te import Axis, Dim, Tensor

_UNKNOWN = 1 << 10  # elements of a dimension whose size is not known


@dataclasses.dataclass(frozen=True)
class Group:
    """``main`` is the stage that is stored; ``own`` are those that only it needs, producers first.

    ``along`` are the axes of each stage that are walked over for one point of the others: those of rows, or those of
    which every result needs all. A reduction's own results lie along none, most often.
    """

    main: Tensor
    own: tuple[Tensor, ...]
    along: Mapping[Tensor, tuple[int, ...]]

    @property
    def stages(self) -> tuple[Tensor, ...]:
        return (*self.own, self.main)

    @property
    def reductions(self) -> tuple[Tensor, ...]:
        return tuple(t for t in self.stages if is_reduction(t))

    def points(self) -> int | None:
        """How many points ``main`` has that are apart from each other; None when that is not known."""
        return count(n for d, n in enumerate(self.main.shape) if d not in self.along[self.main])

    def length(self, stage: Tensor) -> int | None:
        """How many elements of ``stage`` belong to one such point."""
        return count(stage.shape[d] for d in self.along[stage])

    def readers(self, stage: Tensor) -> list[Tensor]:
        return [t for t in self.stages if stage in t.inputs()]


def count(dims: Iterable[Dim]) -> int | None:
    """The product of sizes, None when one is not known."""
    total = 1
    for n in map(constant, dims):
        if n is None:
            return None
        total *= n
    return total


def group_of(main: Tensor, own: Sequence[Tensor]) -> Group:
    """The group of ``main`` and the stages ``own`` (producers first) that are computed for it alone."""
    apart: dict[Tensor, frozenset[int]] = {main: _needed(main, own) | _single(main)}
    for stage in reversed(own):
        dimensions = set(range(stage.rank))
        for reader in (*own, main):
            if stage in reader.inputs() and reader is not stage:
                dimensions &= _dimensions_apart(stage, reader, apart[reader])
        apart[stage] = frozenset(dimensions) | _single(stage)
    along = {t: tuple(d for d in range(t.rank) if d not in apart[t]) for t in apart}
    return Group(main, tuple(own), along)


def _single(tensor: Tensor) -> frozenset[int]:
    return frozenset(d for d, n in enumerate(tensor.shape) if constant(n) == 1)


def _needed(tensor: Tensor, own: Sequence[Tensor]) -> frozenset[int]:
    """The dimensions of ``tensor`` that every reduction which it is made of has as well."""
    if tensor.body is None or is_reduction(tensor):
        return frozenset(range(tensor.rank))
    found = frozenset(range(tensor.rank))
    for load in loads(tensor.body):
        if load.source in own and _has_reduction(load.source, own):
            dimensions = _needed(load.source, own)
            found &= {d for d, a in enumerate(tensor.axes) if any(load.indices[s] == a for s in dimensions)}
    return found


def _has_reduction(tensor: Tensor, own: Sequence[Tensor]) -> bool:
    return is_reduction(tensor) or any(_has_reduction(t, own) for t in tensor.inputs() if t in own)


def _dimensions_apart(stage: Tensor, reader: Tensor, apart: frozenset[int]) -> set[int]:
    """The dimensions of ``stage`` of which each point of the dimensions ``apart`` of ``reader`` needs one index."""
    assert reader.body is not None
    fixed: set[Var] = {reader.axes[d] for d in apart}
    axes = {*reader.axes, *reader.reduce_axes}
    found = set(range(stage.rank))
    for load in loads(reader.body):
        if load.source is stage:
            found &= {d for d, i in enumerate(load.indices) if (free_vars(i) & axes) <= fixed and not _reads(i)}
    return found


def _reads(index: Expr) -> bool:
    return bool(loads(index))


def walked(stage: Tensor, along: Sequence[int]) -> Axis | None:
    """The axis that ``stage`` is walked along element by element in memory: the last of a reduction, or of a row."""
    if is_reduction(stage):
        return stage.reduce_axes[-1] if stage.reduce_axes else None
    return stage.axes[along[-1]] if along else None


def reads_along(tensor: Tensor) -> bool:
    """Whether a reduction steps through memory element by element, and its neighbouring results do not."""
    if not isinstance(tensor.body, Reduce) or not tensor.reduce_axes:
        return False
    sources = [x for x in loads(tensor.body) if x.indices]
    if not sources:
        return False
    largest = max(sources, key=_elements)
    if stride_of(largest, tensor.reduce_axes[-1]) != 1:
        return False
    last = next((a for a in reversed(tensor.axes) if constant(a.extent) != 1), None)
    return last is None or stride_of(largest, last) != 1


def _elements(load: Load) -> int:
    """How many elements ``load`` reads, sizes that are not known taken as long."""
    axes = {v for i in load.indices for v in free_vars(i) if isinstance(v, Axis)}
    return math.prod(constant(a.extent) or _UNKNOWN for a in axes)
