"""A whole model as a sequence of kernel calls on planned memory: what the native entry function executes."""

from __future__ import annotations

import dataclasses
import enum

from polycomp.expr import Var
from polycomp.te import Dim


class Storage(enum.Enum):
    """Where an operand of a kernel call lives."""

    INPUT = "input"  # at byte `offset` of the caller's array number `position`
    OUTPUT = "output"  # at byte `offset` of the caller's result array number `position`
    WEIGHT = "weight"  # at byte `offset` of the module's weights
    ARENA = "arena"  # at byte `offset` of the arena


@dataclasses.dataclass(frozen=True)
class Operand:
    """One pointer argument of a kernel call. Offsets may depend on sizes; those of what it writes are multiples of 64,
    those of what it reads are multiples of an element's size. What it writes overlaps nothing that it reads."""

    storage: Storage
    position: int = 0
    offset: Dim = 0


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Scratch memory of one kernel in bytes: ``shared`` by its threads, plus ``per_thread`` for each of them."""

    shared: Dim = 0
    per_thread: Dim = 0


@dataclasses.dataclass(frozen=True)
class Step:
    """One kernel call: the symbol, its operands (inputs, then outputs) and the values of its size parameters.

    ``sources`` are the model's nodes it computes. ``flops`` (multiply-accumulate counts 2) and ``bytes`` (moved at
    least) describe its work, for profiles; ``chosen_from`` names, for errors, what it takes elements of at indices that
    are data.
    """

    symbol: str
    operands: tuple[Operand, ...]
    sizes: tuple[Dim, ...] = ()
    workspace: Workspace = Workspace()
    sources: tuple[str, ...] = ()
    flops: Dim = 0
    bytes: Dim = 0
    chosen_from: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Program:
    """The steps in order. ``sizes`` are the symbols bound at run time; ``arena_bytes`` is without workspaces."""

    name: str
    sizes: tuple[Var, ...]
    n_inputs: int
    n_outputs: int
    steps: tuple[Step, ...]
    arena_bytes: Dim = 0
