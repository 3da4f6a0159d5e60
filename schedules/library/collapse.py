"""Merging adjacent dimensions that are always walked together: fewer, longer loops with simpler indices.

A pair of adjacent dimensions of a tensor can be merged when every access to either uses both, side by side, with the
inner one over its whole extent. All pairs are assumed mergeable first and struck out until nothing changes.

Reductions over a single element are left out beforehand: a 1x1 convolution reads rows and columns at ``h`` and ``w``
then, not at ``h + kh`` and ``w + kw``, and goes through its image as one line of pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from polycomp.dtypes import DType
from polycomp.expr import Expr, Load, Reduce, const, rebuild, simplify, substitute, transform, wrap
from polycomp.schedules.rewrite import as_dim
from polycomp.te import Axis, Dim, Tensor, topological_order

Pair = tuple[Tensor, int]
"""Dimensions ``d`` and ``d + 1`` of a tensor (its reduction axes count on from its rank)."""


def collapse(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Equal outputs and inputs with mergeable dimensions merged; row-major memory stays the same."""
    outputs = without_single_steps(outputs)
    order = topological_order([*inputs, *outputs])
    pairs = _mergeable(order)
    made: dict[Tensor, Tensor] = {}
    for tensor in order:
        made[tensor] = _merged(tensor, pairs, made)
    return tuple(made[t] for t in outputs), tuple(made[t] for t in inputs)


def without_single_steps(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Equal outputs whose reductions have no axes of extent 1 (but one, if they have no others)."""
    made: dict[Tensor, Tensor] = {}

    def rewrite(e: Expr) -> Expr | None:
        if isinstance(e, Load):
            return Load(made[e.source], e.indices)
        return _over_several(e) if isinstance(e, Reduce) else None

    for tensor in topological_order(outputs):
        body = None if tensor.body is None else transform(tensor.body, rewrite)
        made[tensor] = tensor if body == tensor.body else dataclasses.replace(tensor, body=body)
    return tuple(made[t] for t in outputs)


def _over_several(e: Reduce) -> Reduce:
    kept = tuple(a for a in e.axes if a.extent != 1) or e.axes[-1:]
    return Reduce(e.op, substitute(e.operand, {a: const(0, a.dtype) for a in e.axes if a not in kept}), kept)


def _iters(tensor: Tensor) -> tuple[Axis, ...]:
    return (*tensor.axes, *tensor.reduce_axes)


def _mergeable(order: Sequence[Tensor]) -> set[Pair]:
    pairs: set[Pair] = set()
    for tensor in order:
        pairs |= {(tensor, d) for d in range(tensor.rank - 1)}
        reduce_rank = len(tensor.reduce_axes)
        pairs |= {(tensor, tensor.rank + d) for d in range(reduce_rank - 1)}
    while True:
        bad = set().union(*(_violated(t, pairs) for t in order)) & pairs
        if not bad:
            return pairs
        pairs -= bad


def _violated(tensor: Tensor, pairs: set[Pair]) -> set[Pair]:
    """Pairs of ``tensor`` and of its sources that its body does not allow to merge."""
    if tensor.body is None:
        return set()
    position = {axis: d for d, axis in enumerate(_iters(tensor))}
    bad: set[Pair] = set()
    _scan(tensor.body, tensor, position, pairs, bad)
    return bad


def _scan(e: Expr, tensor: Tensor, position: dict[Axis, int], pairs: set[Pair], bad: set[Pair]) -> None:
    if isinstance(e, Load):
        _scan_load(e, tensor, position, pairs, bad)
    elif isinstance(e, Axis):
        _strike(tensor, position[e], bad)
    else:
        for child in e.operands:
            _scan(child, tensor, position, pairs, bad)


def _strike(tensor: Tensor, dimension: int, bad: set[Pair]) -> None:
    bad |= {(tensor, dimension - 1), (tensor, dimension)}


def _scan_load(load: Load, tensor: Tensor, position: dict[Axis, int], pairs: set[Pair], bad: set[Pair]) -> None:
    source: Tensor = load.source
    used: set[Pair] = set()
    for d in range(source.rank - 1):
        left, right = load.indices[d], load.indices[d + 1]
        if (
            isinstance(left, Axis)
            and isinstance(right, Axis)
            and position[right] == position[left] + 1
            and (tensor, position[left]) in pairs
            and (source, d) in pairs
            and _equal(source.shape[d + 1], right.extent)
        ):
            used.add((tensor, position[left]))
        else:
            bad.add((source, d))
    for index in load.indices:
        if not isinstance(index, Axis):
            _scan(index, tensor, position, pairs, bad)
            continue
        d = position[index]
        bad |= {p for p in ((tensor, d - 1), (tensor, d)) if p not in used}


def _equal(a: Dim, b: Dim) -> bool:
    return simplify(wrap(a)) == simplify(wrap(b))


def _runs(count: int, merged: Sequence[bool]) -> list[list[int]]:
    """Dimensions grouped into runs; ``merged[d]`` joins d and d + 1."""
    runs: list[list[int]] = []
    for d in range(count):
        if d and merged[d - 1]:
            runs[-1].append(d)
        else:
            runs.append([d])
    return runs


def _product(dims: Sequence[Dim]) -> Dim:
    total: Expr = wrap(1)
    for dim in dims:
        total = total * dim
    return as_dim(simplify(total))


def _tensor_runs(tensor: Tensor, pairs: set[Pair]) -> list[list[int]]:
    return _runs(tensor.rank, [(tensor, d) in pairs for d in range(tensor.rank - 1)])


def _merged(tensor: Tensor, pairs: set[Pair], made: dict[Tensor, Tensor]) -> Tensor:
    runs = _tensor_runs(tensor, pairs)
    shape = tuple(_product([tensor.shape[d] for d in run]) for run in runs)
    if tensor.body is None:
        return dataclasses.replace(tensor, shape=shape)
    axes: dict[Axis, Axis] = {}
    for run, extent in zip(runs, shape, strict=True):
        _join([tensor.axes[d] for d in run], extent, axes)
    reduce_axes = tensor.reduce_axes
    reduce_pairs = [(tensor, tensor.rank + d) in pairs for d in range(len(reduce_axes) - 1)]
    for run in _runs(len(reduce_axes), reduce_pairs):
        _join([reduce_axes[d] for d in run], _product([reduce_axes[d].extent for d in run]), axes)
    body = _rewrite(tensor.body, pairs, made, axes)
    new_axes = tuple(dict.fromkeys(axes[a] for a in tensor.axes))
    return dataclasses.replace(tensor, shape=shape, axes=new_axes, body=body)


def _join(old: list[Axis], extent: Dim, axes: dict[Axis, Axis]) -> None:
    merged = old[0] if len(old) == 1 else Axis(".".join(a.name for a in old), DType.INT64, extent)
    axes.update(dict.fromkeys(old, merged))


def _rewrite(e: Expr, pairs: set[Pair], made: dict[Tensor, Tensor], axes: dict[Axis, Axis]) -> Expr:
    if isinstance(e, Load):
        runs = _tensor_runs(e.source, pairs)
        return Load(made[e.source], tuple(_rewrite(e.indices[run[0]], pairs, made, axes) for run in runs))
    if isinstance(e, Axis):
        return axes[e]
    if isinstance(e, Reduce):
        merged = tuple(dict.fromkeys(axes[a] for a in e.axes))
        return Reduce(e.op, _rewrite(e.operand, pairs, made, axes), merged)
    operands = e.operands
    return rebuild(e, tuple(_rewrite(c, pairs, made, axes) for c in operands)) if operands else e
