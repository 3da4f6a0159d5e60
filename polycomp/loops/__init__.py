"""Loop nests: the explicit form of a scheduled kernel, its passes, and an interpreter used as a test oracle."""

from polycomp.loops.ir import (
    Alloc,
    Await,
    Barrier,
    Block,
    Buffer,
    Commit,
    For,
    If,
    Let,
    LoopNest,
    Prefetch,
    Stmt,
    Store,
)
from polycomp.loops.lower import lower_kernel
from polycomp.poly.tree import LoopKind, Scope

__all__ = [
    "Alloc",
    "Await",
    "Barrier",
    "Block",
    "Buffer",
    "Commit",
    "For",
    "If",
    "Let",
    "LoopKind",
    "LoopNest",
    "Prefetch",
    "Scope",
    "Stmt",
    "Store",
    "lower_kernel",
]
