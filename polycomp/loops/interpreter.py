"""Loop nests executed in plain Python, one element at a time: the oracle that code generation is tested against.

It is slow and strict: every access is checked against its buffer's shape, nothing may be read before it was written,
and parallel loops run backwards, so that a dependence between their iterations shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import ExecutionError
from polycomp.expr import Binary, Cast, CheckedIndex, Compare, Const, Expr, Load, Select, Unary, Var, wrap
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
from polycomp.loops.visit import inner
from polycomp.poly.tree import LoopKind, Scope
from polycomp.te.evaluate import apply

Array = np.ndarray[Any, Any]

_INDEX: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0,
    "floormod": lambda a, b: a % b if b else 0,
    "min": min,
    "max": max,
}
_REDUCE_AS = {"sum": "add", "prod": "mul"}


def interpret(nest: LoopNest, inputs: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    """The outputs of ``nest`` for one array per input buffer and the values of its size parameters by name.

    Raises :class:`ExecutionError` for an access outside of a buffer, a checked index that is out of range, a read of
    something never written, or an output that is not written completely.
    """
    machine = _Machine({v: int(sizes[v.name]) for v in nest.sizes})
    for buffer, array in zip(nest.inputs, inputs, strict=True):
        machine.memory[buffer] = [_Memory(buffer, np.asarray(array, buffer.dtype.numpy), None)]
    for buffer in nest.outputs:
        machine.allocate(buffer)
    with np.errstate(all="ignore"):
        machine.execute(nest.body)
    return [_finished(machine.memory[buffer][0]) for buffer in nest.outputs]


@dataclasses.dataclass(frozen=True)
class _Memory:
    """The elements of a buffer; ``written`` says which are defined, None when all are."""

    buffer: Buffer
    data: Array
    written: Array | None

    def place(self, indices: tuple[int, ...]) -> tuple[int, ...]:
        for index, size in zip(indices, self.data.shape, strict=True):
            if not 0 <= index < size:
                raise ExecutionError(f"{self.buffer.name}{list(indices)} lies outside of {list(self.data.shape)}")
        return indices

    def read(self, indices: tuple[int, ...]) -> Array:
        place = self.place(indices)
        if self.written is not None and not self.written[place]:
            raise ExecutionError(f"{self.buffer.name}{list(indices)} is read before it is written")
        return np.asarray(self.data[place])

    def write(self, indices: tuple[int, ...], value: Array) -> None:
        place = self.place(indices)
        if self.written is None:
            raise ExecutionError(f"the input {self.buffer.name} is written to")
        self.data[place] = value
        self.written[place] = True


def _finished(memory: _Memory) -> Array:
    if memory.written is not None and not memory.written.all():
        where = np.argwhere(~memory.written)[0].tolist()
        raise ExecutionError(f"the output {memory.buffer.name}{where} is never written")
    return memory.data


def _threads(stmt: Stmt, around: int = 1) -> int:
    """How many threads execute the largest nest of loops over threads in ``stmt``; 1 when there is none."""
    if isinstance(stmt, For) and stmt.kind is LoopKind.THREAD:
        around *= int(stmt.stop.value) - int(stmt.start.value)  # type: ignore[attr-defined]  # constants
    return max([around, *(_threads(child, around) for child in inner(stmt))])


@dataclasses.dataclass
class _Machine:
    """The state of execution: the values of variables and the memory of buffers.

    Registers around loops over threads are there once for each of them. ``thread`` is the number of the thread that is
    executed, None where all threads do the same.
    """

    env: dict[Var, Any]
    memory: dict[Buffer, list[_Memory]] = dataclasses.field(default_factory=dict)
    thread: int | None = None

    def allocate(self, buffer: Buffer, copies: int = 1) -> None:
        shape = tuple(self.index(wrap(dim)) for dim in buffer.shape)
        self.memory[buffer] = [
            _Memory(buffer, np.zeros(shape, buffer.dtype.numpy), np.zeros(shape, np.bool_)) for _ in range(copies)
        ]

    def execute(self, stmt: Stmt) -> None:
        match stmt:
            case Block():
                for child in stmt.stmts:
                    self.execute(child)
            case For():
                self._loop(stmt)
            case If():
                taken = stmt.body if self.value(stmt.condition) else stmt.orelse
                if taken is not None:
                    self.execute(taken)
            case Let():
                is_index = stmt.var.dtype is DType.INT64
                self.env[stmt.var] = self.index(stmt.value) if is_index else self.value(stmt.value)
                self.execute(stmt.body)
            case Alloc():
                own = stmt.buffer.scope is Scope.REGISTER and self.thread is None
                self.allocate(stmt.buffer, _threads(stmt.body) if own else 1)
                self.execute(stmt.body)
            case Store():
                self._store(stmt)
            case Prefetch() | Barrier() | Commit() | Await():
                pass  # a hint, which may lie outside of the buffer; or what loops one after the other do not need
            case _:
                raise TypeError(f"not a statement: {type(stmt).__name__}")

    def _loop(self, loop: For) -> None:
        iterations = range(self.index(loop.start), self.index(loop.stop))
        around = self.thread
        in_any_order = loop.kind.is_concurrent and loop.kind is not LoopKind.VECTOR  # of lanes, the last one counts
        for i in reversed(iterations) if in_any_order else iterations:
            self.env[loop.var] = i
            if loop.kind is LoopKind.THREAD:
                self.thread = (around or 0) * len(iterations) + i
            self.execute(loop.body)
        self.thread = around

    def _store(self, store: Store) -> None:
        indices = tuple(map(self.index, store.indices))
        value = self.value(store.value)
        for memory in self._written(store):
            new = value
            if store.reduce:
                operation = Binary(_REDUCE_AS.get(store.reduce, store.reduce), store.value, store.value)
                new = apply(operation, memory.read(indices), value)
            memory.write(indices, new)

    def _written(self, store: Store) -> list[_Memory]:
        """The copies of a buffer that a store changes: the thread's own, its neighbours', or all."""
        copies = self._copies(store.buffer)
        if len(copies) == 1 or self.thread is None:
            return copies
        first = self.thread // store.across * store.across
        return copies[first : first + store.across]

    def _copies(self, buffer: Buffer) -> list[_Memory]:
        if buffer not in self.memory:
            raise ExecutionError(f"buffer {buffer.name!r} is used outside of its allocation")
        return self.memory[buffer]

    def _memory(self, buffer: Buffer) -> _Memory:
        copies = self._copies(buffer)
        return copies[(self.thread or 0) if len(copies) > 1 else 0]

    def index(self, e: Expr) -> int:
        """The value of an int64 expression."""
        match e:
            case Const():
                return int(e.value)
            case Binary() if e.op in _INDEX:
                return _INDEX[e.op](self.index(e.left), self.index(e.right))
            case Var():
                return int(self._variable(e))
            case CheckedIndex():
                index, size = self.index(e.index), self.index(e.size)
                if not 0 <= index < size:
                    raise ExecutionError(f"index {index} lies outside of a dimension of size {size}")
                return index
        return int(self.value(e))

    def _variable(self, var: Var) -> Any:
        if var not in self.env:
            raise ExecutionError(f"variable {var.name!r} is used outside of its loop")
        return self.env[var]

    def value(self, e: Expr) -> Array:
        """The value of an expression, as an array without dimensions of its dtype."""
        match e:
            case Const():
                return np.asarray(e.value, e.dtype.numpy)
            case Var():
                return np.asarray(self._variable(e), e.dtype.numpy)
            case Load():
                return self._memory(e.source).read(tuple(map(self.index, e.indices)))
            case Binary() if e.dtype is DType.INT64 and e.op in _INDEX:
                return np.asarray((self.index(e) + 2**63) % 2**64 - 2**63)
            case Binary() | Compare():
                return apply(e, self.value(e.left), self.value(e.right))
            case Unary() | Cast():
                return apply(e, self.value(e.operand))
            case Select():
                return self.value(e.on_true if self.value(e.condition) else e.on_false)
            case CheckedIndex():
                return np.asarray(self.index(e))
        raise TypeError(f"a loop nest may not hold a {type(e).__name__}")
