"""Operands of contractions that are narrower than its arithmetic: where each conversion would be repeated for every
vector of results, a stage of its own converts all of them first, as vectors.

The operand that is read as vectors stays as it is: a conversion of a vector as it is loaded costs little, and a large
matrix is half as many bytes to fetch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.expr import Binary, Cast, Load, Reduce, transform
from polycomp.schedules.library.analysis import Contraction, as_contraction, depends_on
from polycomp.te import Axis, Tensor, topological_order


def widen_operands(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs, in which contractions read a converted copy (``NAME.wide``) of what they would convert again and
    again."""
    made: dict[Tensor, Tensor] = {}
    for tensor in topological_order(outputs):
        made[tensor] = _with_wide_operand(_reading(tensor, made))
    return tuple(made[t] for t in outputs)


def _reading(tensor: Tensor, made: dict[Tensor, Tensor]) -> Tensor:
    """``tensor`` reading from the new tensors."""
    if tensor.body is None or all(made[t] is t for t in tensor.inputs()):
        return tensor

    def rewrite(e: object) -> Load | None:
        return Load(made[e.source], e.indices) if isinstance(e, Load) and e.source in made else None

    return dataclasses.replace(tensor, body=transform(tensor.body, rewrite))


def _with_wide_operand(tensor: Tensor) -> Tensor:
    contraction = as_contraction(tensor)
    conversion = None if contraction is None else _repeated_conversion(contraction)
    if conversion is None:
        return tensor
    load = conversion.operand
    assert isinstance(load, Load) and tensor.body is not None
    wide = Load(_converted(load.source, conversion), load.indices)
    return dataclasses.replace(tensor, body=transform(tensor.body, lambda e: wide if e == conversion else None))


def _repeated_conversion(contraction: Contraction) -> Cast | None:
    """The widening of the operand that one element at a time is read of."""
    body, other = contraction.tensor.body, contraction.other
    assert isinstance(body, Reduce) and isinstance(body.operand, Binary)
    if contraction.dot is not None or depends_on(other, contraction.tensor.axes[-1]):
        return None
    for side in (body.operand.left, body.operand.right):
        if isinstance(side, Cast) and side.operand == other and other.dtype.bytes < side.dtype.bytes:
            return side
    return None


def _converted(source: Tensor, conversion: Cast) -> Tensor:
    """All of ``source`` in the wider type; what computes it is converted, if it is computed here."""
    axes = source.axes or tuple(Axis(f"i{d}", extent=n) for d, n in enumerate(source.shape))
    body = Load(source, axes) if source.body is None else source.body
    name = f"{source.name}.wide"
    return Tensor(name, source.shape, conversion.dtype, axes, Cast(conversion.dtype, body), source.source)
