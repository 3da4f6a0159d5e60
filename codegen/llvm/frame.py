"""What is known while one function of a kernel is being emitted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterator
from typing import Protocol

from polycomp.codegen.llvm.builder import FunctionBuilder, Value
from polycomp.codegen.llvm.linear import Atom, Linear, Monomial
from polycomp.codegen.workspace import WorkspacePlan
from polycomp.expr import CheckedIndex, Expr, Load, Var, walk
from polycomp.loops import Buffer

Binding = Linear | Value


class AddressCounter(Protocol):
    """A loop's counter that hands out induction variables for addresses."""

    def multiple(self, b: FunctionBuilder, others: Monomial, factor: int) -> str: ...


@dataclasses.dataclass
class Frame:
    """The state of emission: names in scope, and the vector loop and mask that statements are under.

    ``loaded`` remembers values by buffer and instruction until the buffer may have changed.
    """

    b: FunctionBuilder
    kernel: str
    plan: WorkspacePlan
    env: dict[Var, Binding] = dataclasses.field(default_factory=dict)
    pointers: dict[Buffer, str] = dataclasses.field(default_factory=dict)
    in_parallel: bool = False
    lanes: int = 0
    mask: Value | None = None
    loaded: dict[Buffer, dict[str, Value]] = dataclasses.field(default_factory=dict)
    counters: dict[Atom, AddressCounter] = dataclasses.field(default_factory=dict)
    versions: dict[Var, list[int]] = dataclasses.field(default_factory=dict)
    dependences: dict[int, tuple[object, tuple[list[int], ...] | None]] = dataclasses.field(default_factory=dict)
    source: str = ""

    @contextlib.contextmanager
    def bound(self, var: Var, binding: Binding) -> Iterator[None]:
        """``var`` stands for ``binding`` within."""
        version = self._version(var)
        outer, before = self.env.get(var), version[0]
        self.env[var], version[0] = binding, self.b.order()
        try:
            yield
        finally:
            version[0] = before
            if outer is None:
                del self.env[var]
            else:
                self.env[var] = outer

    def _version(self, var: Var) -> list[int]:
        """A cell that holds a different number for each binding of ``var``."""
        return self.versions.setdefault(var, [0])

    def key(self, node: object, parts: tuple[Expr, ...]) -> Hashable:
        """A key of the emitted ``parts`` of ``node``, equal only where they give the same; None if they read memory.

        ``node`` is known by its identity, and kept alive so that no other takes that over.
        """
        number = id(node)
        if number not in self.dependences:
            self.dependences[number] = (node, self._find_dependences(parts))
        _, cells = self.dependences[number]
        return None if cells is None else (number, *[cell[0] for cell in cells])

    def _find_dependences(self, parts: tuple[Expr, ...]) -> tuple[list[int], ...] | None:
        nodes = [node for part in parts for node in walk(part)]
        if any(isinstance(node, Load | CheckedIndex) for node in nodes):
            return None
        return tuple(self._version(v) for v in dict.fromkeys(node for node in nodes if isinstance(node, Var)))

    @contextlib.contextmanager
    def masked(self, mask: Value | None) -> Iterator[None]:
        """Statements within are executed only in the lanes of ``mask`` (and of the masks around)."""
        outer = self.mask
        self.mask = self.b.conjunction(outer, mask)
        try:
            yield
        finally:
            self.mask = outer

    @contextlib.contextmanager
    def region(self) -> Iterator[None]:
        """Code within may be executed any number of times: nothing is remembered into it or out of it."""
        self.loaded = {}
        with self.b.scope():
            yield
        self.loaded = {}
