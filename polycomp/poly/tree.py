"""The schedule tree: in which order, and on what storage, a kernel's statements are executed.

A tree is a sequence of nodes. :class:`Loop` is a band of one dimension, :class:`Leaf` executes one statement
instance, :class:`Allocate` gives a tensor private storage within its body. Trees are immutable.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator

from polycomp.expr import Expr, Var
from polycomp.te import Dim, Tensor

SWIZZLED_BYTES = 128
"""Of a row of a swizzled buffer's panel: once through all banks of a GPU's shared memory."""


class Scope(enum.Enum):
    """Where a buffer lives."""

    ARGUMENT = "argument"  # passed to the kernel; row-major, no two arguments overlap
    WORKSPACE = "workspace"  # scratch memory, shared by all threads, or private to each when allocated inside PARALLEL
    REGISTER = "register"  # small and of constant shape: a stack array that codegen promotes to registers. Allocated
    # around THREAD loops it is shared out: each thread holds what it touches
    SHARED = (
        "shared"  # of constant shape, inside BLOCK and outside of THREAD loops: the shared memory of a thread block
    )


class LoopKind(enum.Enum):
    """How a loop is executed. VECTOR, UNROLL, DOT, THREAD and TENSOR need a constant extent.

    A DOT loop lies innermost, within a VECTOR loop, and sums a few products of narrow numbers: an instruction does that
    where the machine has one, and it is unrolled elsewhere.

    A GPU's iterations are thread BLOCKs and, inside of these, THREADs. Several THREAD loops may follow one another in a
    block, with serial loops around them: each is finished before the next begins (lowering puts barriers where one
    needs what another wrote).

    Three TENSOR loops lie innermost, within THREAD loops of eight and of four: a warp's thread adds, to two rows of two
    neighbouring sums each, the products of a few steps. An instruction of tensor cores does that for the whole warp.
    """

    SERIAL = "serial"
    PARALLEL = "parallel"
    VECTOR = "vector"
    UNROLL = "unroll"
    DOT = "dot"
    BLOCK = "block"
    THREAD = "thread"
    TENSOR = "tensor"

    @property
    def is_expanded(self) -> bool:
        """Whether the emitted code has each iteration on its own, so that their number must be constant."""
        return self not in (LoopKind.SERIAL, LoopKind.PARALLEL, LoopKind.BLOCK)

    @property
    def is_concurrent(self) -> bool:
        """Whether iterations are executed at the same time, or in any order."""
        return self.is_shared_out or self in (LoopKind.VECTOR, LoopKind.THREAD)

    @property
    def is_shared_out(self) -> bool:
        """Whether whole iterations are handed to workers: the threads of a pool, the blocks of a grid."""
        return self in (LoopKind.PARALLEL, LoopKind.BLOCK)

    @property
    def sums_across(self) -> bool:
        """Whether iterations may reduce into one element: a horizontal reduction over lanes or threads."""
        return self in (LoopKind.VECTOR, LoopKind.THREAD)


@dataclasses.dataclass(frozen=True)
class Ahead:
    """A hint: ask memory for what will be used of ``tensor`` in ``distance`` iterations of a loop.

    With ``around``, a loop outside of it, these are iterations of that one, and each iteration of all the loops from
    there on asks for its share.
    """

    tensor: Tensor
    distance: int
    around: Var | None = None


@dataclasses.dataclass(frozen=True)
class Loop:
    """``for var in range(extent): body``. ``var`` is unique in the tree; ``extent`` may use size parameters and
    variables of enclosing loops. ``prefetch`` and ``stages`` have no meaning but speed."""

    var: Var
    extent: Dim
    kind: LoopKind
    body: tuple[Node, ...]
    prefetch: tuple[Ahead, ...] = ()
    stages: int = 1


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Executes ``statement`` at ``point``: one expression over the enclosing loops per statement iterator.

    Where a guard does not hold nothing is executed.
    """

    statement: str
    point: tuple[Expr, ...]
    guards: tuple[Expr, ...] = ()


@dataclasses.dataclass(frozen=True)
class Allocate:
    """Within ``body``, ``tensor[x]`` is stored at ``x - origin`` of a buffer of ``shape``, private to each execution
    of this node. Its content is undefined at the start.

    ``folds`` is empty, or has a number per dimension: where it is not 0, the buffer has only so many positions along
    that dimension, and what would be at ``p`` is at ``p`` modulo that number (Halide's ``fold_storage``).
    ``swizzled`` has no meaning but speed: see :class:`polycomp.loops.ir.Buffer`.
    """

    tensor: Tensor
    scope: Scope
    origin: tuple[Expr, ...]
    shape: tuple[Dim, ...]
    body: tuple[Node, ...]
    folds: tuple[int, ...] = ()
    swizzled: bool = False

    @property
    def stored_shape(self) -> tuple[Dim, ...]:
        """The shape of the memory that it takes."""
        return tuple(f or n for f, n in zip(self.folds, self.shape, strict=True)) if self.folds else self.shape


Node = Loop | Leaf | Allocate


def walk(nodes: tuple[Node, ...], path: tuple[Node, ...] = ()) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """All nodes in execution order, each with the nodes that enclose it, outermost first."""
    stack = [(node, path) for node in reversed(nodes)]
    while stack:
        node, around = stack.pop()
        yield node, around
        if not isinstance(node, Leaf):
            inner = (*around, node)
            stack += [(child, inner) for child in node.body[::-1]]
