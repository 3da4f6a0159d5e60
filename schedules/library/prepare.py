"""Inlining before scheduling: cheap tensors are computed where they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.expr import Cast, Expr, Load, Select, const, free_vars, linear_in, loads, substitute, transform, walk
from polycomp.schedules.library.analysis import (
    as_contraction,
    constant,
    depends_on,
    is_expensive,
    is_reduction,
    points_read,
    readers,
    reads_tensor,
)
from polycomp.te import Axis, Tensor, topological_order

_SMALL_BODY = 48  # expression nodes; a larger definition is not repeated for several readers


def inline_cheap(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs in which every tensor that is cheap to recompute has been put into its readers.

    Around a transformed contraction nothing is computed more than once per element: its transforms are chains of sums,
    each of which many elements of the next one read.
    """
    order = topological_order(outputs)
    users = readers(order)
    once = _read_at_several_points(users) if is_transformed(users) else frozenset[Tensor]()
    made: dict[Tensor, Tensor] = {}
    inlined: set[Tensor] = set()
    for tensor in order:
        if tensor.body is None:
            made[tensor] = tensor
            continue
        new = _with_sources(tensor, made, inlined)
        made[tensor] = new
        if tensor not in outputs and tensor not in once and _should_inline(new, tensor, users[tensor]):
            inlined.add(tensor)
    return tuple(made[t] for t in outputs)


def _read_at_several_points(users: Mapping[Tensor, Sequence[Tensor]]) -> frozenset[Tensor]:
    """The tensors of which a reader takes several elements for one of its own."""
    return frozenset(t for t, found in users.items() if any(len(points_read(user, t)) > 1 for user in found))


def is_transformed(users: Mapping[Tensor, Sequence[Tensor]]) -> bool:
    """Whether a contraction's result is transformed: combined with other elements of it."""
    return any(as_contraction(t) is not None for t in _read_at_several_points(users))


def _with_sources(tensor: Tensor, made: dict[Tensor, Tensor], inlined: set[Tensor]) -> Tensor:
    """``tensor`` reading from the new tensors, and containing the definitions of inlined ones."""
    assert tensor.body is not None

    def rewrite(e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        source = made.get(e.source, e.source)
        if e.source in inlined:
            assert source.body is not None
            return substitute(source.body, dict(zip(source.axes, e.indices, strict=True)))
        return None if source is e.source else Load(source, e.indices)

    body = transform(tensor.body, rewrite)
    return tensor if body is tensor.body else dataclasses.replace(tensor, body=body)


def _should_inline(tensor: Tensor, old: Tensor, users: Sequence[Tensor]) -> bool:
    if is_reduction(tensor) or not users:
        return False
    assert tensor.body is not None
    if any(as_contraction(user) is not None for user in users):
        in_place = all(_reads_once(user) or _strides_over(user, old) for user in users)
        return _is_plain_read(tensor.body) or (_is_zero_padding(tensor.body) and in_place)
    if len(users) > 1 and sum(1 for _ in walk(tensor.body)) > _SMALL_BODY:
        return False
    return not is_expensive(tensor) or not (len(users) > 1 or _is_repeated(old, users[0]))


def _is_plain_read(body: Expr) -> bool:
    """Whether a body only moves an element (a transpose or slice), so that a contraction still sees two loads."""
    while isinstance(body, Cast):
        body = body.operand
    return isinstance(body, Load) and not any(isinstance(n, Select) for n in walk(body))


def _is_zero_padding(body: Expr) -> bool:
    """Whether a body moves an element, or is zero outside of what it moves."""
    return isinstance(body, Select) and body.on_false == const(0, body.dtype) and isinstance(body.on_true, Load)


def _reads_once(user: Tensor) -> bool:
    """Whether a contraction reads its operands for one vector of results each (a depthwise convolution): a copy of an
    operand would cost as much as the contraction itself, and tests of conditions are gone where loops are cut."""
    found = as_contraction(user)
    return found is not None and depends_on(found.other, user.axes[-1]) and depends_on(found.vector, user.axes[-1])


def _strides_over(user: Tensor, padded: Tensor) -> bool:
    """Whether a contraction of known sizes takes every other element of a ``padded`` image, blocked by channels, or
    fewer: it does little with each of them, so that a copy with zeros around would take a part of the time that shows.
    """
    reads = reads_tensor(user, padded)
    known = all(constant(n) is not None for n in (*user.shape, *padded.shape))
    if as_contraction(user) is None or not known or len(reads) != 1 or reads[0].indices[-1] not in user.reduce_axes:
        return False
    steps = [linear_in(index, axis) for index in reads[0].indices for axis in user.axes if depends_on(index, axis)]
    return any(step is not None and step[0] > 1 for step in steps)


def _is_repeated(tensor: Tensor, user: Tensor) -> bool:
    """Whether ``user`` reads the same element of ``tensor`` at several of its points."""
    assert user.body is not None
    axes: set[Axis] = {*user.axes, *user.reduce_axes}
    for load in loads(user.body):
        if load.source is tensor:
            used = {v for i in load.indices for v in free_vars(i)}
            if any(a not in used and a.extent != 1 for a in axes):
                return True
    return sum(load.source is tensor for load in loads(user.body)) > 1
