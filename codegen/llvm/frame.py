"""What is known while one function of a kernel is being emitted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from polycomp.codegen.llvm.builder import FunctionBuilder, Value
from polycomp.codegen.llvm.linear import Linear
from polycomp.codegen.llvm.workspace import WorkspacePlan
from polycomp.expr import Var
from polycomp.loops import Buffer

Binding = Linear | Value


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
    strides: dict[Buffer, tuple[Linear, ...]] = dataclasses.field(default_factory=dict)
    source: str = ""

    @contextlib.contextmanager
    def bound(self, var: Var, binding: Binding) -> Iterator[None]:
        """``var`` stands for ``binding`` within."""
        outer = self.env.get(var)
        self.env[var] = binding
        try:
            yield
        finally:
            if outer is None:
                del self.env[var]
            else:
                self.env[var] = outer

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
