"""What is done to a kernel's tensors before they are scheduled for a GPU.

A thread recomputes what is cheap, as on a CPU. But where the results of a row are made in several walks over it, what
the walks have in common is a stage of its own here, that threads keep in their registers: memory is read once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.expr import Expr, Load, Reduce, Var, const, rebuild, simplify, substitute, transform, walk
from polycomp.schedules.library.analysis import as_contraction, computed, is_reduction, readers, stride_of
from polycomp.schedules.library.collapse import collapse
from polycomp.schedules.library.gpu.groups import reads_along
from polycomp.schedules.library.gpu.products import Product, as_products
from polycomp.schedules.library.gpu.scores import Attention, as_attention
from polycomp.schedules.library.gpu.tiles import best_tile
from polycomp.schedules.library.prepare import inline_cheap
from polycomp.schedules.library.reduction import main_stages
from polycomp.target import Target
from polycomp.te import Axis, Tensor, topological_order

_LARGEST_BODY = 256  # expression nodes of an element that is made by one thread


def prepare(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], target: Target
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Product | Attention, ...]]:
    """Equal outputs and inputs, ready to be scheduled, and what of them are products of matrices, or two of these with
    what is between them: memory stays the same, shapes do not."""
    if any(t.is_recurrence for t in computed(outputs)):
        return tuple(outputs), tuple(inputs), ()
    merged_outputs, merged_inputs = _merged(_without_single_points(_with_axes(outputs)), inputs)
    attention = as_attention(merged_outputs)
    if attention is not None and best_tile(attention, target) is not None:
        return attention.outputs, merged_inputs, (attention,)
    merged_outputs, products = as_products(merged_outputs, target.cores)
    return merged_outputs, merged_inputs, products


def _merged(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    plain = inline_cheap(outputs)
    stages = computed(plain)
    if not any(map(is_reduction, stages)):
        return collapse(_inlined(plain), inputs)
    if not any(map(reads_along, stages)):
        return collapse(plain, inputs)
    if any(as_contraction(t) is not None for t in stages):
        return collapse(_with_shared(outputs), inputs)
    return collapse(_with_copies(_with_shared(outputs)), inputs)


def _with_axes(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs in which what is computed has at least one dimension, which can be a loop over blocks."""
    made: dict[Tensor, Tensor] = {}

    def rewrite(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or made[e.source] is e.source:
            return None
        return Load(made[e.source], e.indices or tuple(const(0) for _ in made[e.source].shape))

    for tensor in topological_order(outputs):
        made[tensor] = tensor
        if tensor.body is None:
            continue
        body = transform(tensor.body, rewrite)
        if not tensor.shape:
            made[tensor] = dataclasses.replace(tensor, shape=(1,), axes=(Axis("single", extent=1),), body=body)
        elif body is not tensor.body:
            made[tensor] = dataclasses.replace(tensor, body=body)
    return tuple(made[t] for t in outputs)


def _without_single_points(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs in whose indices and conditions axes of one element are 0: a window as large as its image reads all
    of that in order then."""
    made: dict[Tensor, Tensor] = {}
    for tensor in topological_order(outputs):
        made[tensor] = tensor
        if tensor.body is not None:
            zero: dict[Var, Expr] = {a: const(0, a.dtype) for a in tensor.axes if a.extent == 1}
            body = _at_zero(tensor.body, zero, made)
            made[tensor] = tensor if body == tensor.body else dataclasses.replace(tensor, body=body)
    return tuple(made[t] for t in outputs)


def _at_zero(e: Expr, zero: dict[Var, Expr], made: dict[Tensor, Tensor]) -> Expr:
    if isinstance(e, Load):
        indices = (i if isinstance(i, Axis) else simplify(_at_zero(i, zero, made)) for i in e.indices)
        return Load(made[e.source], tuple(indices))
    if isinstance(e, Var):
        return zero.get(e, e)
    if not e.operands:
        return e
    changed = tuple(_at_zero(x, zero, made) for x in e.operands)
    return e if changed == e.operands else rebuild(e, changed)


def _inlined(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs without stages between: what is repeated in an expression, the compiler of the code finds."""
    made: dict[Tensor, Tensor] = {}
    gone: set[Tensor] = set()

    def rewrite(e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        source = made[e.source]
        if e.source in gone:
            assert source.body is not None
            return substitute(source.body, dict(zip(source.axes, e.indices, strict=True)))
        return None if source is e.source else Load(source, e.indices)

    for tensor in topological_order(outputs):
        made[tensor] = tensor
        if tensor.body is not None:
            body = transform(tensor.body, rewrite)
            made[tensor] = tensor if body is tensor.body else dataclasses.replace(tensor, body=body)
            if tensor not in outputs and sum(1 for _ in walk(body)) <= _LARGEST_BODY:
                gone.add(tensor)
    return tuple(made[t] for t in outputs)


def _with_shared(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs with what is cheap inlined, but not the elementwise tensors that several stages read, unless these
    are in launches of their own."""
    users = readers(topological_order(outputs))
    shared = [t for t, found in users.items() if t.body is not None and not is_reduction(t) and len(found) > 1]
    while True:
        made = inline_cheap((*outputs, *(t for t in shared if t not in outputs)))[: len(outputs)]
        stored = _stored(made)
        if not any(t.name in stored for t in shared):
            return made
        shared = [t for t in shared if t.name not in stored]


def _stored(outputs: Sequence[Tensor]) -> set[str]:
    """The names of the tensors that are read by several launches, or after them."""
    return {t.name for t in main_stages(computed(outputs), outputs)}


def _with_copies(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs in which an input whose rows the stages of a launch walk along is read by one stage, a copy
    (``NAME.row``): vectors of it are loaded at once, before the first is needed."""
    order = topological_order(outputs)
    users = readers(order)
    walked = [t for t in order if t.body is None and any(_walks(u, t) for u in users[t])]
    copies = {t: _copy(t) for t in walked}
    made = _reading(order, copies)
    stored = _stored([made[t] for t in outputs])
    if any(copy.name in stored for copy in copies.values()):
        made = _reading(order, {t: copy for t, copy in copies.items() if copy.name not in stored})
    return tuple(made[t] for t in outputs)


def _reading(order: Sequence[Tensor], copies: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """The tensors of ``order``, each reading copies where there are some."""
    made: dict[Tensor, Tensor] = {}

    def rewrite(e: Expr) -> Expr | None:
        return Load(made[e.source], e.indices) if isinstance(e, Load) and made[e.source] is not e.source else None

    for tensor in order:
        made[tensor] = copies.get(tensor, tensor)
        if tensor.body is not None:
            body = transform(tensor.body, rewrite)
            made[tensor] = tensor if body is tensor.body else dataclasses.replace(tensor, body=body)
    return made


def _walks(reader: Tensor, source: Tensor) -> bool:
    """Whether ``reader`` is a reduction along rows of ``source``, of which there are several."""
    if not isinstance(reader.body, Reduce) or not reader.reduce_axes:
        return False
    found = [e for e in walk(reader.body) if isinstance(e, Load) and e.source is source]
    last = reader.reduce_axes[-1]
    return any(stride_of(x, last) == 1 and any(i in reader.axes for i in x.indices) for x in found)


def _copy(tensor: Tensor) -> Tensor:
    axes = tuple(Axis(f"c{d}", extent=n) for d, n in enumerate(tensor.shape))
    return Tensor(f"{tensor.name}.row", tensor.shape, tensor.dtype, axes, Load(tensor, axes), tensor.source)
