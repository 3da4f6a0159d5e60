"""Where numbers of 16 bits are rounded to them: what one kernel makes and reads itself keeps its digits.

In mixed precision a value is in 16 bits because it is in memory. The definition of every operator rounds its result to
its type, which between two operators of one kernel only costs time and digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.dtypes import DType
from polycomp.expr import Cast, Expr, Load, transform
from polycomp.schedules.library.analysis import as_contraction
from polycomp.te import Tensor, topological_order


def round_at_borders(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors like ``outputs``, but what lies between, and is read in float32 alone, is not rounded to 16 bits.

    What a product of matrices or a convolution reads stays as it is: its operands have 16 bits.
    """
    order = topological_order(outputs)
    if any(t.is_recurrence for t in order):
        return tuple(outputs)
    rounded = {*outputs, *_operands(order)} | {source for t in order for source in _read_as_they_are(t.body)}
    made: dict[Tensor, Tensor] = {}
    for tensor in order:
        body = None if tensor.body is None else _reading(tensor.body, made)
        made[tensor] = tensor if body is tensor.body else dataclasses.replace(tensor, body=body)
        if tensor not in rounded and isinstance(body, Cast) and _is_rounding(body):
            made[tensor] = dataclasses.replace(tensor, dtype=DType.FLOAT32, body=body.operand)
    return tuple(made[t] for t in outputs)


def _operands(order: Sequence[Tensor]) -> list[Tensor]:
    """What the contractions among the tensors read."""
    return [source for t in order if as_contraction(t) is not None for source in t.inputs()]


def _read_as_they_are(e: Expr | None) -> set[Tensor]:
    """The tensors of 16 bits of which an expression reads elements that it does not widen at once."""
    match e:
        case None:
            return set()
        case Load() if e.source.dtype.is_half:
            return {e.source}.union(*map(_read_as_they_are, e.indices))
        case Cast(operand=Load() as load) if e.dtype is DType.FLOAT32:
            return set[Tensor]().union(*map(_read_as_they_are, load.indices))
    return set[Tensor]().union(*map(_read_as_they_are, e.operands))


def _reading(body: Expr, made: Mapping[Tensor, Tensor]) -> Expr:
    """``body`` reading the new tensors, and no conversion of those that became float32."""

    def rewrite(e: Expr) -> Expr | None:
        if isinstance(e, Load) and made.get(e.source, e.source) is not e.source:
            return Load(made[e.source], e.indices)
        return e.operand if isinstance(e, Cast) and e.operand.dtype is e.dtype else None

    return transform(body, rewrite)


def _is_rounding(e: Cast) -> bool:
    return e.dtype.is_half and e.operand.dtype is DType.FLOAT32
