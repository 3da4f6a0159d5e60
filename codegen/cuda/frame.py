"""What is known while one function of a kernel is being emitted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TypeVar

from polycomp.codegen.cuda import code
from polycomp.codegen.cuda.code import Code
from polycomp.codegen.cuda.groups import Groups
from polycomp.codegen.cuda.names import Names
from polycomp.codegen.cuda.shared import SharedMemory
from polycomp.codegen.workspace import WorkspacePlan
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Expr, Interval, Load, Var, free_vars
from polycomp.expr import walk as walk_expression
from polycomp.loops import Buffer, Scope

_INDENT = "    "
_K = TypeVar("_K")
_V = TypeVar("_V")

IN_REGISTERS = Var("<registers>")
"""Stands for whatever a thread's registers depend on."""


@dataclasses.dataclass(frozen=True)
class Thread:
    """A loop over threads: its variable and place in the nest, 0 for the outermost."""

    var: Var
    depth: int


@dataclasses.dataclass(frozen=True)
class Predicate:
    """A condition under which statements are executed, and the variables it depends on."""

    condition: Code
    roots: frozenset[Var]


@dataclasses.dataclass
class Frame:
    """The state of emission. ``block`` is the number of threads of a block.

    ``env`` has what variables are in C, ``ranges`` their bounds, and ``roots`` the loops' variables that they depend
    on, themselves included; ``data`` are those that hold elements of tensors, whose arithmetic wraps around, ``values``
    what names of indices stand for. ``threads`` are the loops over threads around, and ``shape`` the extents of all of
    their nest. ``predicates`` are conditions that statements are yet to be put under: all threads are to come to what
    exchanges values between them (``groups``). ``extents`` are those of the loops over blocks that are yet to come.
    """

    kernel: str
    plan: WorkspacePlan
    names: Names
    block: int
    ranges: dict[Var, Interval]
    groups: Groups
    shared: SharedMemory
    extents: tuple[Expr, ...] = ()
    is_inside_blocks: bool = False
    env: dict[Var, Code] = dataclasses.field(default_factory=dict)
    places: dict[Buffer, str] = dataclasses.field(default_factory=dict)
    roots: dict[Var, frozenset[Var]] = dataclasses.field(default_factory=dict)
    data: set[Var] = dataclasses.field(default_factory=set)
    values: dict[Var, Expr] = dataclasses.field(default_factory=dict)
    threads: tuple[Thread, ...] = ()
    shape: tuple[int, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    header: list[str] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    declared: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    scratch: dict[tuple[DType, int], str] = dataclasses.field(default_factory=dict)
    level: int = 1
    source: str = ""

    def line(self, text: str) -> None:
        self.lines.append(f"{_INDENT * self.level}{text}")

    @contextlib.contextmanager
    def braces(self, head: str) -> Iterator[None]:
        """``head {``, what is emitted within, ``}``."""
        self.line(f"{head} {{" if head else "{")
        self.level += 1
        yield
        self.level -= 1
        self.line("}")

    def declare(self, name: str, kind: str, value: str) -> str:
        """A constant at the function's beginning, once for each name and value; returns what it is called."""
        key = (name, value)
        if key not in self.declared:
            self.declared[key] = fresh = self.names.fresh(name)
            self.header.append(f"{_INDENT}const {kind} {fresh} = {value};")
        return self.declared[key]

    @contextlib.contextmanager
    def bound(self, var: Var, value: Code, interval: Interval, roots: frozenset[Var]) -> Iterator[None]:
        """``var`` stands for ``value`` within, which lies in ``interval`` and depends on ``roots``."""
        before = self.env.get(var), self.ranges.get(var), self.roots.get(var)
        self.env[var], self.ranges[var], self.roots[var] = value, interval, roots
        yield
        _restore(self.env, var, before[0])
        _restore(self.ranges, var, before[1])
        _restore(self.roots, var, before[2])

    def lookup(self, var: Var) -> Code:
        try:
            return self.env[var]
        except KeyError:
            raise self.error(f"uses variable {var.name!r} outside of its loop") from None

    def place(self, buffer: Buffer) -> str:
        try:
            return self.places[buffer]
        except KeyError:
            raise self.error(f"uses buffer {buffer.name!r} outside of its allocation") from None

    def depends_on(self, *expressions: Expr) -> frozenset[Var]:
        """The loops' variables (and IN_REGISTERS) that decide the expressions' values."""
        found: set[Var] = set()
        for e in expressions:
            for var in free_vars(e):
                found |= self.roots.get(var, frozenset([var]))
            loads = (part.source for part in walk_expression(e) if isinstance(part, Load))
            if any(source.scope is Scope.REGISTER for source in loads):
                found.add(IN_REGISTERS)
        return frozenset(found)

    def varies(self, roots: frozenset[Var]) -> bool:
        """Whether what depends on ``roots`` may differ between the threads of a nest."""
        return bool(self.threads) and (IN_REGISTERS in roots or any(thread.var in roots for thread in self.threads))

    @contextlib.contextmanager
    def under(self, predicates: tuple[Predicate, ...]) -> Iterator[None]:
        """What is emitted within has ``predicates`` still to be put under."""
        outer, self.predicates = self.predicates, predicates
        yield
        self.predicates = outer

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """What is emitted within is executed only where all predicates hold."""
        conditions = [predicate.condition for predicate in self.predicates]
        with self.under(()):
            if not conditions:
                yield
                return
            with self.braces(f"if ({code.conjunction(conditions).text})"):
                yield

    def error(self, what: str) -> CompileError:
        return CompileError(f"kernel {self.kernel!r} {what}")


def _restore(mapping: dict[_K, _V], key: _K, value: _V | None) -> None:
    if value is None:
        del mapping[key]
    else:
        mapping[key] = value
