"""What is known about a kernel's loops: how often they do arithmetic in vectors, and how they reach memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from polycomp.expr import Binary, Const, Expr, Unary, Var, free_vars, linear_in, loads, simplify, substitute, walk
from polycomp.expr import const as constant
from polycomp.loops import For, Let, LoopNest, Scope, Stmt, Store
from polycomp.loops.visit import inner
from polycomp.poly.tree import LoopKind

_LOGARITHMS = ("exp", "expm1", "exp2", "log", "log1p", "log2", "sigmoid", "erf", "sinh", "cosh", "tanh")
_CIRCULAR = ("sin", "cos", "tan", "asin", "acos", "atan", "asinh", "acosh", "atanh")
_ELEMENTARY = frozenset((*_LOGARITHMS, *_CIRCULAR))
_SAMPLES = (0, 1, 5)  # where an index that is not linear is looked at


@dataclasses.dataclass
class Traits:
    """Counts over all iterations of a kernel (with all conditions taken to hold).

    ``operations`` in floating point, of which ``vector`` are in vector loops that have room for ``slots``;
    ``elementary`` are exponentials and the like. ``accesses`` to memory in vector loops, of which ``scattered`` are not
    to neighbouring elements. ``parallel`` is the number of iterations of the loop that threads share; 0 for none.
    """

    operations: float = 0.0
    vector: float = 0.0
    slots: float = 0.0
    elementary: float = 0.0
    accesses: float = 0.0
    scattered: float = 0.0
    parallel: int = 0

    @property
    def vector_share(self) -> float:
        """The part of all operations that is done in vectors."""
        return self.vector / self.operations if self.operations else 1.0

    @property
    def lanes_used(self) -> float:
        """The part of the vectors' lanes that do something."""
        return self.vector / self.slots if self.slots else 1.0

    @property
    def scattered_share(self) -> float:
        """The part of the vector accesses that go element by element."""
        return self.scattered / self.accesses if self.accesses else 0.0


def traits_of(nest: LoopNest, sizes: Mapping[Var, int], lanes: int) -> Traits:
    """Count over ``nest`` with these values of its size parameters, on vectors of ``lanes`` elements."""
    counter = _Counter({v: constant(n) for v, n in sizes.items()}, lanes)
    counter.visit(nest.body, 1.0, None)
    return counter.traits


class _Counter:
    def __init__(self, values: dict[Var, Expr], lanes: int) -> None:
        self.traits = Traits()
        self.values = values  # of sizes and of let-bound variables
        self.lanes = lanes

    def visit(self, stmt: Stmt, times: float, vector: For | None) -> None:
        """Count ``stmt``, which is executed ``times`` times; ``vector`` is the vector loop around it."""
        match stmt:
            case For():
                self._loop(stmt, times, vector)
            case Let():
                self.values[stmt.var] = substitute(stmt.value, self.values)
                self.visit(stmt.body, times, vector)
            case Store():
                self._store(stmt, times, vector)
            case _:
                for child in inner(stmt):
                    self.visit(child, times, vector)

    def _loop(self, loop: For, times: float, vector: For | None) -> None:
        extent = self._extent(loop)
        if loop.kind is LoopKind.PARALLEL:
            self.traits.parallel = max(self.traits.parallel, extent)
        self.visit(loop.body, times * extent, loop if loop.kind is LoopKind.VECTOR else vector)

    def _extent(self, loop: For) -> int:
        """The loop's iterations; of one whose bounds depend on other loops, the largest number (those at 0)."""
        extent = self._value(loop.stop - loop.start, 0)
        return max(0, extent) if extent is not None else 1

    def _value(self, e: Expr, elsewhere: int, at: Mapping[Var, int] | None = None) -> int | None:
        """``e`` with variables as given in ``at``, and at ``elsewhere`` the others; None when it reads memory."""
        e = substitute(e, self.values)
        given = at or {}
        known = {v: constant(given.get(v, elsewhere)) for v in free_vars(e)}
        value = simplify(substitute(e, known))
        return int(value.value) if isinstance(value, Const) else None

    def _store(self, store: Store, times: float, vector: For | None) -> None:
        traits = self.traits
        operations = times * (_operations(store.value) + bool(store.reduce and store.buffer.dtype.is_float))
        traits.operations += operations
        traits.elementary += times * sum(isinstance(e, Unary) and e.op in _ELEMENTARY for e in walk(store.value))
        if vector is None:
            return
        extent = max(1, self._extent(vector))
        traits.vector += operations
        traits.slots += operations * (math.ceil(extent / self.lanes) * self.lanes) / extent
        for source, indices in _accesses(store):
            traits.accesses += times
            traits.scattered += times * (not self._is_neighbouring(source, indices, vector.var))

    def _is_neighbouring(self, shape: Sequence[Expr | int], indices: Sequence[Expr], lane: Var) -> bool:
        """Whether lanes access one element, or neighbours in memory."""
        offset: Expr = constant(0)
        for index, size in zip(indices, shape, strict=True):
            offset = offset * size + index
        offset = substitute(offset, self.values)
        linear = linear_in(offset, lane)
        if linear is not None:
            return abs(linear[0]) <= 1
        return all(self._steps_by_one(offset, lane, elsewhere) for elsewhere in _SAMPLES)

    def _steps_by_one(self, offset: Expr, lane: Var, elsewhere: int) -> bool:
        values = [self._value(offset, elsewhere, {lane: at}) for at in (0, 1, 2)]
        first, second, third = values
        return (
            first is not None
            and second is not None
            and third is not None
            and 0 <= second - first == third - second <= 1
        )


def _operations(e: Expr) -> int:
    return sum(isinstance(x, Binary | Unary) and x.dtype.is_float for x in walk(e))


def _accesses(store: Store) -> Iterator[tuple[Sequence[Expr | int], Sequence[Expr]]]:
    """Shape and indices of each access to memory, not to registers."""
    found = [(x.source, x.indices) for x in loads(store.value)] + [(store.buffer, store.indices)]
    for buffer, indices in found:
        if buffer.scope is not Scope.REGISTER:
            yield buffer.shape, indices
