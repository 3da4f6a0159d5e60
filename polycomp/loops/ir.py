"""LoopNest IR: explicit loops, allocations and stores. The last IR before code generation."""

from __future__ import annotations

import dataclasses

from polycomp.dtypes import DType
from polycomp.expr import Expr, Var
from polycomp.poly.tree import LoopKind, Scope
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True, eq=False)
class Buffer:
    """Row-major memory of ``shape`` elements, starting at a multiple of ``alignment`` bytes. Compared by identity.

    Shared memory may be ``swizzled`` instead: panels of 128 bytes of the last dimension follow one another, each with
    all rows, and in every row of a panel the pieces of 16 bytes change places by the row's number, so that a column of
    eight rows lies in all banks.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    scope: Scope = Scope.ARGUMENT
    alignment: int = 64
    swizzled: bool = False


class Stmt:
    """Base of loop-nest statements."""


@dataclasses.dataclass(frozen=True)
class For(Stmt):
    """``for var in range(start, stop): body``. With ``stages`` above 1, a loop whose copies to shared memory are asked
    for so many iterations before, less one."""

    var: Var
    start: Expr
    stop: Expr
    kind: LoopKind
    body: Stmt
    stages: int = 1


@dataclasses.dataclass(frozen=True)
class If(Stmt):
    """``body`` only where ``condition`` holds. Inside a VECTOR loop the condition may differ per lane (a mask)."""

    condition: Expr
    body: Stmt
    orelse: Stmt | None = None


@dataclasses.dataclass(frozen=True)
class Let(Stmt):
    """``var`` stands for ``value`` within ``body``."""

    var: Var
    value: Expr
    body: Stmt


@dataclasses.dataclass(frozen=True)
class Alloc(Stmt):
    """``buffer`` (not an ARGUMENT; content undefined) exists within ``body``."""

    buffer: Buffer
    body: Stmt


@dataclasses.dataclass(frozen=True)
class Store(Stmt):
    """``buffer[indices] = value``; with ``reduce`` (of REDUCE_OPS), ``buffer[indices] = buffer[indices] op value``.

    A reducing store may be reassociated: in a VECTOR loop whose variable is not in ``indices`` it is a horizontal
    reduction. With ``across`` it is one over so many neighbouring threads, the last loops over THREADs around it: each
    of them has the result, of registers, and the first of them changes other memory. One to shared memory that is
    ``ahead`` need not be done before the group that it is in (``Commit``) is waited for. ``source`` names where the
    statement comes from.
    """

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    reduce: str = ""
    source: str = ""
    across: int = 1
    ahead: bool = False


@dataclasses.dataclass(frozen=True)
class Block(Stmt):
    """Statements one after the other."""

    stmts: tuple[Stmt, ...]


@dataclasses.dataclass(frozen=True)
class Prefetch(Stmt):
    """Ask for the cache line at ``buffer[indices]``; ``write`` when it will be stored to. A line that is not ``near``
    goes to the second-level cache only."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    write: bool = False
    near: bool = True


@dataclasses.dataclass(frozen=True)
class Barrier(Stmt):
    """The threads of a block wait for each other: what they wrote before is seen by all of them after it."""


@dataclasses.dataclass(frozen=True)
class Commit(Stmt):
    """Ends a group: the stores of each thread since the last one that are ``ahead``."""


@dataclasses.dataclass(frozen=True)
class Await(Stmt):
    """Each thread waits until at most its last ``pending`` groups are not done."""

    pending: int


@dataclasses.dataclass(frozen=True)
class LoopNest:
    """One kernel as explicit loops.

    ``inputs`` then ``outputs`` are its ARGUMENT buffers in order; ``sizes`` its int64 parameters (>= 0).
    ``sources`` are the names of the model's nodes it computes.
    """

    name: str
    sizes: tuple[Var, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    body: Stmt
    sources: tuple[str, ...] = ()
