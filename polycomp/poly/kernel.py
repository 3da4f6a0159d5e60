"""The Kernel: statements, and a schedule tree that says how they are executed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.expr import Expr, Interval, Reduce, Var, free_vars, wrap
from polycomp.poly.tree import Node
from polycomp.te import Axis, Tensor, reduce_identity


@dataclasses.dataclass(frozen=True)
class Statement:
    """``tensor[indices] = value``, or ``tensor[indices] op= value`` with ``reduce`` (of REDUCE_OPS), for all ``iters``.

    The domain is the box ``0 <= iter < extent`` of all iterators. ``value`` and ``indices`` are over the iterators.
    """

    name: str
    tensor: Tensor
    iters: tuple[Axis, ...]
    indices: tuple[Expr, ...]
    value: Expr
    reduce: str = ""

    @property
    def source(self) -> str:
        return self.tensor.source


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Statements and the tree that schedules them.

    ``inputs`` are placeholders; ``outputs`` are the tensors that outlive the kernel; every other tensor is stored by
    an Allocate node. ``ranges`` are inclusive bounds of the size parameters.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    statements: Mapping[str, Statement]
    tree: tuple[Node, ...]
    ranges: Mapping[Var, Interval] = dataclasses.field(default_factory=dict)

    @property
    def sizes(self) -> tuple[Var, ...]:
        """The size parameters in use, ordered by name."""
        used: set[Var] = set()
        for tensor in (*self.inputs, *self.outputs):
            for dim in tensor.shape:
                used |= free_vars(wrap(dim))
        for statement in self.statements.values():
            for axis in statement.iters:
                used |= free_vars(wrap(axis.extent))
            for e in (statement.value, *statement.indices):
                used |= {v for v in free_vars(e) if not isinstance(v, Axis)}
        return tuple(sorted(used, key=lambda v: v.name))


def statements_of(tensor: Tensor) -> tuple[Statement, ...]:
    """The statements that compute ``tensor``: one, or an initialisation and an update when it is a reduction.

    Named ``X`` for tensor X, or ``X.init`` and ``X.update``.
    """
    body = tensor.body
    if body is None:
        return ()
    indices: tuple[Expr, ...] = tensor.axes
    if not isinstance(body, Reduce):
        return (Statement(tensor.name, tensor, tensor.axes, indices, body),)
    identity = reduce_identity(body.op, body.dtype)
    iters = (*tensor.axes, *tensor.reduce_axes)
    return (
        Statement(f"{tensor.name}.init", tensor, tensor.axes, indices, identity),
        Statement(f"{tensor.name}.update", tensor, iters, indices, body.operand, body.op),
    )
