"""Attention as tensors over whole tiles: how a kernel's stages are recognised, and what they become.

Scores and weights are defined for more rows and keys than there are, so that a block's tile, and each thread's part of
it, is like every other: what lies beyond the end counts for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.expr import (
    Cast,
    Compare,
    Expr,
    Load,
    Reduce,
    Select,
    Var,
    compare,
    const,
    loads,
    select,
    simplify,
    substitute,
    transform,
    wrap,
)
from polycomp.schedules.library.analysis import as_contraction, computed, constant, depends_on
from polycomp.schedules.library.gpu.products import Product, as_products, digits, extent_of
from polycomp.te import Axis, Tensor, reduce_identity

KEYS = 32
"""Scores and weights are defined for a multiple of so many keys: one for each lane of a warp."""


@dataclasses.dataclass(frozen=True)
class Attention:
    """A kernel's ``outputs``, made of ``second.result``: rows of ``first.tensor`` become rows of ``second.left``.

    ``stages`` do so, producers first: those over ``[batch.., m, key]``, and those over ``[batch.., m]`` that there are
    once per row. The first are the scores as they are stored, the last are the weights.
    """

    outputs: tuple[Tensor, ...]
    first: Product
    second: Product
    stages: tuple[Tensor, ...]

    @property
    def scores(self) -> Tensor:
        return self.stages[0]

    @property
    def weights(self) -> Tensor:
        return self.stages[-1]

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """What is made of other tensors than those of an attention."""
        return (self.first.left, self.first.right, self.second.right, *self.stages)

    @property
    def keys(self) -> int:
        """For how many keys scores are stored."""
        return constant(self.scores.shape[-1]) or 0


def are_steps_last(product: Product, operand: Tensor) -> bool:
    """Whether the steps of the sum are the last dimension of an operand, rather than the one before."""
    return _load_of(product.tensor, operand).indices[-1] in product.tensor.reduce_axes


class _OtherKernelError(Exception):
    """A kernel is no attention."""


def as_attention(outputs: Sequence[Tensor]) -> Attention | None:
    """A kernel as an attention over a known number of keys, or None when it is something else."""
    if len(outputs) != 1 or sum(as_contraction(t) is not None for t in computed(outputs)) != 2:
        return None
    made, products = as_products(outputs)
    if len(products) != 2:
        return None
    try:
        return _Rewriting(made[0], *products).apply()
    except _OtherKernelError:
        return None


def _check(fits: bool) -> None:
    if not fits:
        raise _OtherKernelError


class _Rewriting:
    """The steps, with what they share.

    ``roles`` tells which of the first result's axes each axis of a stage goes along; None: it has one element. All new
    stages have the same axes: ``batch``, ``row``, which counts all rows, and ``key``. ``bodies`` are the definitions in
    terms of these: they load from the old stages, but hold the definitions of those that come before all reductions.
    """

    def __init__(self, output: Tensor, first: Product, second: Product) -> None:
        self.first, self.second = first, second
        self.order = computed([output])
        axes = first.result.axes
        self.column = len(axes) - 1
        keys = constant(axes[-1].extent)
        _check(first.columns == (self.column,) and keys is not None and constant(first.depth) is not None)
        self.keys = keys or 0
        self.rows = extent_of([axes[d].extent for d in first.rows])
        self.row = Axis("row", extent=first.tensor.shape[-2])
        self.key = Axis("key", extent=-(-self.keys // KEYS) * KEYS)
        self.batch = tuple(Axis(f"b{d}", extent=axes[d].extent) for d in first.batch)
        numbers = digits([axes[d] for d in first.rows], self.row)
        self.positions: dict[int, Expr] = dict(zip(first.batch, self.batch, strict=True))
        self.positions |= {self.column: self.key, **{d: numbers[axes[d]] for d in first.rows}}
        self.product = Load(first.tensor, (*self.batch, self.row, self.key))
        self.roles: dict[Tensor, tuple[int | None, ...]] = {first.result: tuple(range(len(axes)))}
        self.bodies: dict[Tensor, Expr] = {first.result: self.product}
        self.own = {first.tensor}
        self.neutral = ""  # the reduction of which the scores beyond the last key change nothing

    def apply(self) -> Attention:
        for stage in self._between():
            self.roles[stage] = self._roles_of(stage)
            self.bodies[stage] = self._over_rows(stage)
        left = self.second.left
        self.roles[left], self.bodies[left] = self._weights()
        self.own |= set(self.bodies)
        scores, late = self._scores({stage: body for stage, body in self.bodies.items() if not self._is_early(stage)})
        made: dict[Tensor, Tensor] = {}
        for stage, body in late.items():
            made[stage] = self._stage(stage, body, scores, made)
            self.own.add(made[stage])
        second = self._second(made[left])
        return Attention((self._output(second),), self.first, second, (scores, *made.values()))

    # ------------------------------------------------------------------ recognising

    def _between(self) -> list[Tensor]:
        """The stages from the first result to the weights, which nothing else reads."""
        result, left = self.first.result, self.second.left
        found: list[Tensor] = []
        for stage in self.order:
            if stage is not result and any(t is result or t in found for t in stage.inputs()):
                found.append(stage)
        _check(left in found and self.second.right not in found)
        found = found[: found.index(left)]
        readers = [t for t in self.order if any(s is result or s in found for s in t.inputs())]
        _check(all(t is left or t in found for t in readers) and self.order[-1] not in (result, *found))
        _check([t for t in self.order if left in t.inputs()] == [self.second.tensor])
        return found

    def _roles_of(self, stage: Tensor) -> tuple[int | None, ...]:
        """Of a stage that reads others at its own point, or all keys of a row."""
        axes = (*stage.axes, *stage.reduce_axes)
        found: dict[Axis, int] = {}
        for load in loads(_body(stage)):
            for index, role in zip(load.indices, self.roles.get(load.source, ()), strict=False):
                if isinstance(index, Axis) and index in axes and role is not None:
                    _check(found.setdefault(index, role) == role)
                else:
                    _check(index == const(0) and (role is None or self._is_single(role)))
        _check(len(set(found.values())) == len(found) and not stage.is_recurrence)
        _check(all(a in found or a.extent == 1 for a in axes))
        _check([found.get(a) for a in stage.reduce_axes] in ([], [self.column]))
        own = {found[a] for a in stage.axes if a in found}
        _check(all(d in own or self._is_single(d) for d in range(self.column)))
        return tuple(found.get(a) for a in stage.axes)

    def _is_single(self, role: int) -> bool:
        return constant(self.first.result.shape[role]) == 1

    def _is_early(self, stage: Tensor) -> bool:
        """Whether a stage is made of the first product at its own point, without a reduction."""
        body = self.bodies[stage]
        return not isinstance(body, Reduce) and all(load.source not in self.roles for load in loads(body))

    def _over_rows(self, stage: Tensor) -> Expr:
        """The definition of a stage in terms of the new axes."""
        roles = dict(zip(stage.axes, self.roles[stage], strict=True))
        values: dict[Var, Expr] = {a: const(0) if role is None else self.positions[role] for a, role in roles.items()}
        values |= dict.fromkeys(stage.reduce_axes, self.key)
        body = _body(stage)
        operand = substitute(body.operand if isinstance(body, Reduce) else body, values)

        def relocate(e: Expr) -> Expr | None:
            return self._read(e.source) if isinstance(e, Load) and e.source in self.roles else None

        operand = transform(operand, relocate)
        return Reduce(body.op, operand, (self.key,)) if isinstance(body, Reduce) else operand

    def _read(self, stage: Tensor) -> Expr:
        """What is read of a stage at a row, and a key."""
        if self._is_early(stage):
            return self.bodies[stage]
        return Load(stage, self._point(stage))

    def _point(self, stage: Tensor) -> tuple[Axis, ...]:
        return (*self.batch, self.row, *([self.key] if self.column in self.roles[stage] else []))

    def _weights(self) -> tuple[tuple[int | None, ...], Expr]:
        """Roles and definition of the second product's left operand."""
        left, result = self.second.left, self.second.result
        element = _body(left)
        while isinstance(element, Select) and _is_end(element.condition, left):
            element = element.on_true
        _check(isinstance(element, Load) and element.source in self.roles)
        assert isinstance(element, Load)
        row, key = left.axes[-2:] if are_steps_last(self.second, left) else left.axes[:-3:-1]
        numbers = digits([result.axes[d] for d in self.second.rows], row)
        wanted: dict[int, Expr] = {self.column: key}
        _check(len(self.first.rows) == len(self.second.rows) and self.row.extent == row.extent)
        wanted |= {d: numbers[result.axes[e]] for d, e in zip(self.first.rows, self.second.rows, strict=True)}
        found: dict[Axis, int] = {key: self.column}
        for index, role in zip(element.indices, self.roles[element.source], strict=True):
            if role in wanted:
                _check(index == wanted[role])
            elif isinstance(index, Axis) and role is not None:
                found[index] = role
            else:
                _check(index == const(0) and (role is None or self._is_single(role)))
        _check(self.column in self.roles[element.source] and set(left.axes) == {row, *found})
        return tuple(found.get(a) for a in left.axes), self._read(element.source)

    # ------------------------------------------------------------------ new stages

    def _scores(self, late: dict[Tensor, Expr]) -> tuple[Tensor, dict[Tensor, Expr]]:
        """What is stored of the scores, and the other stages' definitions, which read it.

        That is what the first reduction reads, if nothing else is read of them. Beyond the last key it is what changes
        nothing of this reduction.
        """
        reductions = [body for body in late.values() if isinstance(body, Reduce)]
        _check(bool(reductions))
        first, axes = reductions[0], (*self.batch, self.row, self.key)
        for element in (_narrow(first.operand), self.product):
            self.neutral = first.op if _narrow(first.operand) == element and element.dtype.is_float else ""
            end = reduce_identity(first.op, element.dtype) if self.neutral else const(0, element.dtype)
            scores = _tensor(self.first.result, axes, self._inside(element, end, keys=True))
            self.own.add(scores)
            changed = {stage: _replaced(body, element, Load(scores, axes)) for stage, body in late.items()}
            if not any(self.product in loads(body) for body in changed.values()):
                break
        return scores, changed

    def _stage(self, old: Tensor, body: Expr, scores: Tensor, made: Mapping[Tensor, Tensor]) -> Tensor:
        """A new stage, which sums over no keys beyond the last, and reads nothing beyond."""

        def relocate(e: Expr) -> Expr | None:
            return Load(made[e.source], e.indices) if isinstance(e, Load) and e.source in made else None

        body = transform(body, relocate)
        if isinstance(body, Reduce):
            neutral = body.op == self.neutral and _narrow(body.operand) == Load(scores, scores.axes)
            operand = self._inside(body.operand, reduce_identity(body.op, body.dtype), keys=not neutral)
            body = Reduce(body.op, operand, body.axes)
            return _tensor(old, (*self.batch, self.row), body)
        body = self._inside(body, const(0, body.dtype), keys=old is self.second.left)
        return _tensor(old, self._point(old), body)

    def _inside(self, e: Expr, otherwise: Expr, keys: bool) -> Expr:
        """``e`` where there are a row and a key, as far as it reads anything there; ``keys``: only for those."""
        foreign = [x for x in loads(e) if x.source not in self.own]
        if self.keys != self.key.extent and (keys or any(depends_on(x, self.key) for x in foreign)):
            e = select(compare("lt", self.key, self.keys), e, otherwise)
        if any(depends_on(x, self.row) for x in foreign) and simplify(wrap(self.rows)) != wrap(self.row.extent):
            e = select(compare("lt", self.row, self.rows), e, otherwise)
        return e

    def _second(self, weights: Tensor) -> Product:
        """The second product, of ``weights`` and of values for as many keys."""
        old, (step,) = self.second.tensor, self.second.tensor.reduce_axes
        key = Axis(step.name, extent=self.key.extent)
        left, right = (_load_of(old, t) for t in (self.second.left, self.second.right))
        at = dict(zip(self.roles[left.source], left.indices, strict=True))
        batch = [at.get(d, const(0)) for d in self.first.batch]
        values = self._values()
        read = {
            left: Load(weights, (*batch, old.axes[-2], key)),
            right: Load(values, tuple(substitute(i, {step: key}) for i in right.indices)),
        }
        body = _body(old)
        assert isinstance(body, Reduce)
        operand = transform(body.operand, lambda e: read.get(e) if isinstance(e, Load) else None)
        product = dataclasses.replace(old, body=Reduce(body.op, operand, (key,)))
        result = _moved(self.second.result, {old: product})
        return dataclasses.replace(self.second, tensor=product, left=weights, right=values, result=result)

    def _values(self) -> Tensor:
        """The second product's right operand, zero beyond the last key."""
        values = self.second.right
        old = values.axes[-1 if are_steps_last(self.second, values) else -2]
        if constant(old.extent) == self.key.extent:
            return values
        key = Axis(old.name, extent=self.key.extent)
        body, inside = substitute(_body(values), {old: key}), compare("lt", key, self.keys)
        if not isinstance(body, Select) or body.condition != inside:
            body = select(inside, body, const(0, body.dtype))
        return _tensor(values, tuple(key if a is old else a for a in values.axes), body)

    def _output(self, second: Product) -> Tensor:
        made = {self.second.result: second.result}
        for stage in self.order[self.order.index(self.second.result) + 1 :]:
            made[stage] = _moved(stage, made)
        return made[self.order[-1]]


def _body(tensor: Tensor) -> Expr:
    assert tensor.body is not None
    return tensor.body


def _narrow(e: Expr) -> Expr:
    """What is stored to have ``e`` where it is read: what was narrow before it was converted."""
    while isinstance(e, Cast) and e.operand.dtype.bytes < e.dtype.bytes:
        e = e.operand
    return e


def _tensor(old: Tensor, axes: Sequence[Axis], body: Expr) -> Tensor:
    """A stage in the place of ``old``."""
    return Tensor(old.name, tuple(a.extent for a in axes), body.dtype, tuple(axes), body, old.source)


def _replaced(e: Expr, old: Expr, new: Expr) -> Expr:
    body = transform(e.operand if isinstance(e, Reduce) else e, lambda part: new if part == old else None)
    return Reduce(e.op, body, e.axes) if isinstance(e, Reduce) else body


def _moved(tensor: Tensor, made: Mapping[Tensor, Tensor]) -> Tensor:
    """``tensor`` reading from new tensors."""

    def relocate(e: Expr) -> Expr | None:
        return Load(made[e.source], e.indices) if isinstance(e, Load) and e.source in made else None

    return dataclasses.replace(tensor, body=transform(_body(tensor), relocate))


def _load_of(product: Tensor, operand: Tensor) -> Load:
    return next(x for x in loads(_body(product)) if x.source is operand)


def _is_end(condition: Expr, operand: Tensor) -> bool:
    """Whether a condition is that of zeros beyond an operand's end."""
    return isinstance(condition, Compare) and condition.op == "lt" and condition.left in operand.axes[-2:]
