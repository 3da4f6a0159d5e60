"""A kernel's launches: the functions that it becomes, each with its grid of blocks and the threads of a block."""

from __future__ import annotations

import dataclasses
import math

from polycomp.codegen.cuda.groups import outermost_threads, shape_of
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Const, Expr, Ranges, Unary, Var, free_vars, loads, maximum, simplify, substitute
from polycomp.loops import Alloc, Barrier, Block, For, If, Let, LoopKind, LoopNest, Prefetch, Scope, Stmt, Store
from polycomp.loops.visit import block, walk
from polycomp.te import Dim

MOST_THREADS = 1024
"""Of a block."""

_WARP = 32


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one launch executes: ``extents`` are those of its loops over blocks, ``threads`` is the size of a block."""

    body: Stmt
    extents: tuple[Expr, ...]
    grid: Dim
    threads: int


def split(nest: LoopNest, ranges: Ranges) -> tuple[Piece, ...]:
    """The launches in order: one for each statement at the root that holds loops over blocks; of the others each is
    one block of its own.

    Raises :class:`CompileError` for loops over blocks that are not nested in one another, or inside of other loops.
    """
    return tuple(_piece(stmt, nest, ranges) for stmt in _split(nest.body, nest.name))


def _split(stmt: Stmt, kernel: str) -> list[Stmt]:
    match stmt:
        case Prefetch() | Barrier():
            return []
        case Block():
            return [piece for child in stmt.stmts for piece in _split(child, kernel)]
        case Alloc() if stmt.buffer.scope is Scope.WORKSPACE:
            return _split(stmt.body, kernel)
        case For(kind=LoopKind.BLOCK):
            return [stmt]
    if not _has_blocks(stmt):
        return [_in_phases(stmt)]
    match stmt:
        case Let():
            return [Let(stmt.var, stmt.value, piece) for piece in _split(stmt.body, kernel)]
        case If():
            other = [] if stmt.orelse is None else _split(stmt.orelse, kernel)
            taken: list[Stmt] = [If(stmt.condition, piece) for piece in _split(stmt.body, kernel)]
            return taken + [If(Unary("not", stmt.condition), piece) for piece in other]
        case Alloc():
            what = f"the {stmt.buffer.scope.value} buffer {stmt.buffer.name!r}"
            raise CompileError(f"kernel {kernel!r} has {what} around loops over blocks, of which each has its own")
    assert isinstance(stmt, For)
    raise CompileError(f"kernel {kernel!r} has blocks inside of the {stmt.kind.value} loop {stmt.var.name!r}")


def _in_phases(stmt: Stmt) -> Stmt:
    """A single block's statements one after the other: what they allocate around them, they touch together."""
    match stmt:
        case Alloc() | Let():
            return dataclasses.replace(stmt, body=_in_phases(stmt.body))
        case Block():
            return block([part for child in stmt.stmts for part in (Barrier(), _in_phases(child))][1:])
    return stmt


def _has_blocks(stmt: Stmt) -> bool:
    return any(isinstance(s, For) and s.kind is LoopKind.BLOCK for s in walk(stmt))


def _piece(stmt: Stmt, nest: LoopNest, ranges: Ranges) -> Piece:
    loops = _loops_over_blocks(stmt, nest.name, {})
    extents = tuple(simplify(maximum(stop - start, 0), ranges) for start, stop in loops)
    grid: Expr = simplify(math.prod(extents, start=Const(1, DType.INT64)), ranges)
    unknown = sorted(v.name for v in free_vars(grid) - set(nest.sizes))
    if unknown or loads(grid):
        raise CompileError(
            f"kernel {nest.name!r} has {grid} blocks, which {unknown[0] if unknown else 'data'} decides: only sizes may"
        )
    return Piece(stmt, extents, int(grid.value) if isinstance(grid, Const) else grid, _block_size(stmt, nest.name))


def _loops_over_blocks(stmt: Stmt, kernel: str, values: dict[Var, Expr]) -> list[tuple[Expr, Expr]]:
    """The bounds of the nested loops over blocks, outermost first."""
    match stmt:
        case For(kind=LoopKind.BLOCK):
            bounds = substitute(stmt.start, values), substitute(stmt.stop, values)
            return [bounds, *_loops_over_blocks(stmt.body, kernel, values)]
        case Let():
            return _loops_over_blocks(stmt.body, kernel, {**values, stmt.var: substitute(stmt.value, values)})
        case Alloc() | If(orelse=None):
            return _loops_over_blocks(stmt.body, kernel, values)
        case Block() if len(stmt.stmts) == 1:
            return _loops_over_blocks(stmt.stmts[0], kernel, values)
    if _has_blocks(stmt):
        raise CompileError(f"kernel {kernel!r} has statements beside a loop over blocks inside of another one")
    return []


def _block_size(stmt: Stmt, kernel: str) -> int:
    """The threads of the largest nest. Where threads may reduce together, warps are whole."""
    nests = list(outermost_threads(stmt))
    size = max((math.prod(shape_of(loop, kernel)) for loop in nests), default=1)
    if size > 1 and any(isinstance(s, Store) and s.across > 1 for loop in nests for s in walk(loop)):
        size = -(-size // _WARP) * _WARP
    if size > MOST_THREADS:
        raise CompileError(f"kernel {kernel!r} has blocks of {size} threads; {MOST_THREADS} are the most")
    return size
