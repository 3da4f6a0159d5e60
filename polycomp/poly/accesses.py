"""What statements read and write, in terms of their iterators."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from polycomp.dtypes import DType
from polycomp.expr import (
    Binary,
    CheckedIndex,
    Expr,
    Load,
    Select,
    Var,
    rebuild,
    walk,
)
from polycomp.poly.kernel import Statement
from polycomp.te import Dim, Tensor

Condition = tuple[Expr, bool]
"""A bool expression and the truth value it has."""

_INTEGER_DIVISIONS = frozenset(["truncdiv", "truncmod", "floordiv", "floormod"])


@dataclasses.dataclass(frozen=True)
class Access:
    """``tensor[indices]`` where all ``conditions`` hold, over the statement's iterators and ``unknowns``.

    An unknown stands for an index that depends on data: any value in ``0 <= unknown < extent``. ``strict`` is set
    when a meaningless value would not merely spoil the result (it is an index or divides integers), so that it must
    not be read even by an instance that computes padding.
    """

    tensor: Tensor
    indices: tuple[Expr, ...]
    conditions: tuple[Condition, ...] = ()
    strict: bool = False
    unknowns: Mapping[Var, Dim] = dataclasses.field(default_factory=dict)


def write_of(statement: Statement) -> Access:
    """The access by which ``statement`` writes."""
    return Access(statement.tensor, statement.indices)


def reads_of(statement: Statement) -> tuple[Access, ...]:
    """All loads in the statement's value, each different one once."""
    found = dict.fromkeys(_visit(statement.value, (), False))
    return tuple(_access(f"?{statement.name}.{n}", *each) for n, each in enumerate(found))


_Found = tuple[Load, tuple[Condition, ...], bool]


def _visit(e: Expr, conditions: tuple[Condition, ...], strict: bool) -> Iterator[_Found]:
    if isinstance(e, Load):
        yield e, conditions, strict
        strict = True
    elif isinstance(e, Select):
        yield from _visit(e.condition, conditions, strict)
        yield from _visit(e.on_true, (*conditions, (e.condition, True)), strict)
        yield from _visit(e.on_false, (*conditions, (e.condition, False)), strict)
        return
    elif isinstance(e, CheckedIndex) or (isinstance(e, Binary) and e.op in _INTEGER_DIVISIONS):
        strict = True
    for child in e.operands:
        yield from _visit(child, conditions, strict)


def _access(name: str, load: Load, conditions: tuple[Condition, ...], strict: bool) -> Access:
    unknowns = _Unknowns(name)
    indices = []
    for index, extent in zip(load.indices, load.source.shape, strict=True):
        index = unknowns.without_checks(index)
        indices.append(index if condition_is_affine(index) else unknowns.standing_for(index, extent))
    known = tuple((unknowns.without_checks(c), holds) for c, holds in conditions)
    return Access(load.source, tuple(indices), known, strict, unknowns.extents)


class _Unknowns:
    """Variables that stand for indices that depend on data; equal expressions share one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[Expr, Var] = {}
        self.extents: dict[Var, Dim] = {}

    def standing_for(self, e: Expr, extent: Dim) -> Var:
        if e not in self.known:
            self.known[e] = Var(f"{self.name}.{len(self.known)}")
            self.extents[self.known[e]] = extent
        return self.known[e]

    def without_checks(self, e: Expr) -> Expr:
        """Replace checked indices, whose value is some number within their bounds."""
        if isinstance(e, CheckedIndex):
            return self.standing_for(e, e.size) if condition_is_affine(e.size) else e
        operands = e.operands
        new = tuple(self.without_checks(c) for c in operands)
        return e if new == operands else rebuild(e, new)


def _depends_on_data(e: Expr) -> bool:
    return isinstance(e, Load | CheckedIndex) or not (e.dtype.is_integer or e.dtype is DType.BOOL)


def condition_is_affine(e: Expr) -> bool:
    """Whether nothing in ``e`` depends on data."""
    return not any(_depends_on_data(n) for n in walk(e))
