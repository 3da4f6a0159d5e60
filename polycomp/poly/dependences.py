"""The dependences between a kernel's statements, in the order in which its tensors define them.

Self-dependences of a reduction's updates are a kind of their own: they may be reordered, but not executed at once.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence

import islpy as isl

from polycomp.expr import Expr, Interval, Var, bounds, substitute, wrap
from polycomp.poly.accesses import Access, reads_of, write_of
from polycomp.poly.affine import Frame, condition_forms, isl_variables, size_parameters
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.linear import Form, Forms, Prover
from polycomp.te import Tensor


class DependenceKind(enum.Enum):
    RAW = "read after write"
    WAR = "write after read"
    WAW = "write after write"
    REDUCTION = "reduction"  # two updates of the same element


@dataclasses.dataclass(frozen=True, eq=False)
class Dependence:
    """``target`` must follow ``source`` at the pairs of instances in ``relation``, both touching ``tensor``.

    ``relation`` maps source iterators to target iterators (tuples named after the statements). ``deltas`` bounds
    target minus source per iterator name that both have. An index that depends on data counts as any element.
    """

    source: str
    target: str
    kind: DependenceKind
    tensor: Tensor
    relation: isl.Map
    deltas: Mapping[str, Interval]


def dependences(kernel: Kernel) -> tuple[Dependence, ...]:
    """All dependences between the statements of ``kernel``, by source and target in the order of its statements."""
    order = list(kernel.statements.values())
    finder = _Finder(kernel)
    return tuple(d for i, s in enumerate(order) for t in order[i:] for d in finder.between(s, t))


@dataclasses.dataclass(frozen=True)
class _Use:
    access: Access
    writes: bool


def _uses(statement: Statement) -> Iterator[_Use]:
    """Reads, then the write; a reducing update also reads what it writes."""
    for access in reads_of(statement):
        yield _Use(access, False)
    if statement.reduce:
        yield _Use(write_of(statement), False)
    yield _Use(write_of(statement), True)


class _Finder:
    def __init__(self, kernel: Kernel) -> None:
        self.context = isl.Context()
        self.ranges: dict[Var, Interval] = dict.fromkeys(kernel.sizes, (0, None)) | dict(kernel.ranges)
        self.uses = {name: tuple(_uses(s)) for name, s in kernel.statements.items()}

    def between(self, source: Statement, target: Statement) -> Iterator[Dependence]:
        """The dependences of ``target`` on ``source``, each kind and pair of accesses once."""
        if source is target:
            if source.reduce:
                use = self.uses[source.name][-1]
                yield self._dependence(source, target, DependenceKind.REDUCTION, use.access, use.access)
            return
        seen: set[tuple[DependenceKind, tuple[Expr, ...], tuple[Expr, ...]]] = set()
        for first in self.uses[source.name]:
            for second in self.uses[target.name]:
                kind = _kind(first.writes, second.writes)
                if kind is None or first.access.tensor is not second.access.tensor:
                    continue
                key = (kind, first.access.indices, second.access.indices)
                if key not in seen:
                    seen.add(key)
                    yield self._dependence(source, target, kind, first.access, second.access)

    def _dependence(
        self, source: Statement, target: Statement, kind: DependenceKind, first: Access, second: Access
    ) -> Dependence:
        pair = _Pair(self, source, target, first, second)
        reduction = kind is DependenceKind.REDUCTION
        relation = pair.relation(self.context, reduction)
        return Dependence(source.name, target.name, kind, first.tensor, relation, pair.deltas())


def _kind(first_writes: bool, second_writes: bool) -> DependenceKind | None:
    if first_writes and second_writes:
        return DependenceKind.WAW
    if first_writes:
        return DependenceKind.RAW
    return DependenceKind.WAR if second_writes else None


class _Pair:
    """Two accesses to the same tensor, the source's variables primed."""

    def __init__(self, finder: _Finder, source: Statement, target: Statement, first: Access, second: Access) -> None:
        self.source, self.target = source, target
        self.before: dict[Var, Var] = {v: Var(f"{v.name}'") for v in (*source.iters, *first.unknowns)}
        self.after: dict[Var, Var] = {v: Var(v.name) for v in (*target.iters, *second.unknowns)}
        ranges = dict(finder.ranges)
        extents = {self.before[a]: a.extent for a in source.iters} | {self.after[a]: a.extent for a in target.iters}
        extents |= {self.before[v]: e for v, e in first.unknowns.items()}
        extents |= {self.after[v]: e for v, e in second.unknowns.items()}
        for var, extent in extents.items():
            high = bounds(wrap(extent), finder.ranges)[1]
            ranges[var] = (0, None if high is None else high - 1)
        self.forms = Forms(ranges)
        self.extents = {v: self.forms.of(e) for v, e in extents.items()}
        self.equal = [
            self._form(a, self.before).plus(self._form(b, self.after), -1)
            for a, b in zip(first.indices, second.indices, strict=True)
        ]
        self.conditions = [
            (substitute(c, names), holds)
            for access, names in ((first, self.before), (second, self.after))
            for c, holds in access.conditions
        ]

    def _form(self, e: Expr, names: Mapping[Var, Var]) -> Form:
        return self.forms.of(substitute(e, names))

    def relation(self, context: isl.Context, ordered: bool) -> isl.Map:
        """Pairs of instances that touch the same element; with ``ordered``, the source lexicographically first."""
        sources = [self.before[a] for a in self.source.iters]
        targets = [self.after[a] for a in self.target.iters]
        unknown = [v for v in self.extents if v not in (*sources, *targets)]
        dims = (*sources, *targets, *unknown)
        box = [f for v, e in self.extents.items() for f in (Form({v: 1}), e.plus(Form({v: 1}), -1).add(-1))]
        compared = [f for c, _ in self.conditions for f in condition_forms(c, self.forms)]
        found = isl_variables((*self.equal, *box, *compared), self.forms)
        frame = Frame(context, self.forms, size_parameters(found, dims), dims)
        points = frame.where(box, self.equal)
        for condition, holds in self.conditions:
            points = points.intersect(frame.condition(condition, holds, True))
        points = frame.without_last(points, len(unknown))
        return self._named(points, ordered)

    def _named(self, points: isl.Set, ordered: bool) -> isl.Map:
        count = len(self.source.iters)
        result = isl.Map.from_range(points).move_dims(isl.dim_type.in_, 0, isl.dim_type.out, 0, count)
        if ordered:
            result = result.intersect(isl.Map.lex_lt(result.get_space().domain()))
        for kind, statement in ((isl.dim_type.in_, self.source), (isl.dim_type.out, self.target)):
            for i, axis in enumerate(statement.iters):
                result = result.set_dim_name(kind, i, axis.name)
            result = result.set_tuple_name(kind, statement.name)
        return result

    def deltas(self) -> dict[str, Interval]:
        """Bounds of target minus source per common iterator, using the element that both touch."""
        prover = Prover(self.forms, ())
        values = self._source_values()
        result: dict[str, Interval] = {}
        for name in _common(self.source.iters, self.target.iters):
            before, after = Form({Var(f"{name}'"): 1}), Form({Var(name): 1})
            result[name] = prover.interval(after.plus(self.forms.substituted(before, values), -1))
        return result

    def _source_values(self) -> dict[Var, Form]:
        """Source iterators that the equal indices determine, in terms of the target's."""
        found: dict[Var, Form] = {}
        for equation in self.equal:
            for var in self.before.values():
                if abs(equation.terms.get(var, 0)) == 1:
                    rest = equation.plus(Form({var: 1}), -equation.terms[var])
                    if not rest.variables & set(self.before.values()):
                        found[var] = rest.scaled(-equation.terms[var])
        return found


def _common(first: Sequence[Var], second: Sequence[Var]) -> list[str]:
    names = {v.name for v in second}
    return [v.name for v in first if v.name in names]
