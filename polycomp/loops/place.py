"""Where a tensor's elements are while a kernel runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.expr import Expr
from polycomp.loops.ir import Buffer


@dataclasses.dataclass(frozen=True)
class Place:
    """A buffer, the tensor's coordinates of its first element, and how it is folded (see ``poly.tree.Allocate``)."""

    buffer: Buffer
    origin: tuple[Expr, ...]
    folds: tuple[int, ...] = ()

    def position(self, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        """The position in the buffer of the tensor's element at ``indices``."""
        offsets = tuple(i - o for i, o in zip(indices, self.origin, strict=True))
        return tuple(p % f if f else p for p, f in zip(offsets, self.folds or (0,) * len(offsets), strict=True))
