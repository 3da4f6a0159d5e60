"""Handles on what a schedule is made of, and how primitives find it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence

from polycomp.expr import Var
from polycomp.te import Tensor


@dataclasses.dataclass(frozen=True)
class LoopRef:
    """A handle on a loop. It stays valid, whatever happens around the loop, until the loop itself is replaced."""

    var: Var

    @property
    def name(self) -> str:
        return self.var.name

    def __repr__(self) -> str:
        return self.var.name


LoopLike = LoopRef | str
"""A handle on a loop, or the loop's name."""

TensorLike = Tensor | str
"""A tensor, or its name."""


def name_of(what: object) -> str:
    """The name of a loop or tensor, or the text of what is none."""
    return what if isinstance(what, str) else str(getattr(what, "name", what))


def quoted(names: Iterable[str]) -> str:
    """Names for a message: ``'i', 'j'``."""
    return ", ".join(map(repr, names)) or "none"


def suggestion(name: str, names: Sequence[str]) -> str:
    """``; did you mean 'x'?`` when one of ``names`` is close, else nothing."""
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
