"""What is known while one function of a kernel is being emitted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterator
from typing import Protocol

from polycomp.codegen.llvm.builder import FunctionBuilder, Value
from polycomp.codegen.llvm.linear import Atom, Linear, Monomial
from polycomp.codegen.llvm.workspace import WorkspacePlan
from polycomp.expr import CheckedIndex, Expr, Load, Var, free_vars, walk
from polycomp.loops import Buffer

Binding = Linear | Value


class AddressCounter(Protocol):
    """A loop's counter that hands out induction variables for addresses."""

    def multiple(self, b: FunctionBuilder, others: Monomial, factor: int) -> str: ...


def reads_memory(e: Expr) -> bool:
    return any(isinstance(node, Load | CheckedIndex) for node in walk(e))


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
    versions: dict[Var, int] = dataclasses.field(default_factory=dict)
    variables: dict[Expr, tuple[Var, ...] | None] = dataclasses.field(default_factory=dict)
    source: str = ""

    @contextlib.contextmanager
    def bound(self, var: Var, binding: Binding) -> Iterator[None]:
        """``var`` stands for ``binding`` within."""
        outer, version = self.env.get(var), self.versions.get(var, 0)
        self.env[var], self.versions[var] = binding, self.b.order()
        try:
            yield
        finally:
            self.versions[var] = version
            if outer is None:
                del self.env[var]
            else:
                self.env[var] = outer

    def key(self, e: Expr) -> Hashable:
        """Equal for two evaluations of ``e`` only if they give the same; None for what depends on memory."""
        if e not in self.variables:
            self.variables[e] = None if reads_memory(e) else tuple(free_vars(e))
        variables = self.variables[e]
        return None if variables is None else (e, *[self.versions.get(v, 0) for v in variables])

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
