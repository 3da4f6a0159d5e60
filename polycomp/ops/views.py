"""Operators that only see the same elements in the same order under another shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from polycomp.expr import Expr, Interval, Var, binary, const, simplify
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import known_different, pointwise, product, same_type, shape_error
from polycomp.ops.registry import family
from polycomp.ops.windows import as_dim, required
from polycomp.te import Axis, Dim, Tensor


def _infer_reshape(call: Call) -> tuple[TensorType, ...]:
    """Sizes whose products cannot be compared while compiling are taken to be equal."""
    x = call.input(0)
    shape = tuple(as_dim(d) for d in call.attr("shape"))
    if known_different(product(x.shape), product(shape)):
        raise shape_error(call, f"the data cannot be reshaped to [{', '.join(map(str, shape))}]")
    return (TensorType(x.dtype, shape),)


def _lower_reshape(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    (out,) = _infer_reshape(call)
    return (pointwise(call, "", out.shape, lambda *index: x[reshaped_index(x.shape, out.shape, index)]),)


def reshaped_index(source: Sequence[Dim], target: Sequence[Dim], index: Sequence[Expr]) -> tuple[Expr, ...]:
    """Where the element at ``index`` of shape ``target`` is in shape ``source``.

    Runs of dimensions with equal products are matched first, so that only those that are really merged or split
    need divisions.
    """
    result: list[Expr] = [const(0)] * len(source)
    ranges: dict[Var, Interval] = {i: _range_of(i) for i in index if isinstance(i, Axis)}
    for old, new in _matching_runs(source, target):
        flat = _flatten([index[d] for d in new], [target[d] for d in new])
        parts = _unflatten(flat, [source[d] for d in old])
        for d, part in zip(old, parts, strict=True):
            result[d] = simplify(part, ranges)
    return tuple(result)


def _range_of(axis: Axis) -> Interval:
    return (0, axis.extent - 1 if isinstance(axis.extent, int) else None)


def _matching_runs(source: Sequence[Dim], target: Sequence[Dim]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions (those of size 1 left out) of ``source`` and ``target`` with equal products."""
    old, new = ([d for d, n in enumerate(shape) if n != 1] for shape in (source, target))
    reached = {prefix: i for i, prefix in enumerate(_prefixes([source[d] for d in old]))}
    begin, start = 0, 0
    for stop, prefix in enumerate(_prefixes([target[d] for d in new])):
        end = reached.get(prefix)
        last = stop == len(new)
        if last or (end is not None and end > begin):
            end = len(old) if last or end is None else end
            yield old[begin:end], new[start:stop]
            begin, start = end, stop


def _prefixes(dims: Sequence[Dim]) -> Iterator[Dim]:
    """1, then the products of the first one, two, ... sizes in normal form."""
    return itertools.accumulate(dims, lambda a, b: as_dim(a * b), initial=1)


def _flatten(index: Sequence[Expr], dims: Sequence[Dim]) -> Expr:
    flat: Expr = const(0)
    for i, n in zip(index, dims, strict=True):
        flat = flat * n + i
    return flat


def _unflatten(flat: Expr, dims: Sequence[Dim]) -> list[Expr]:
    """The index in each dimension; the first needs no remainder, since ``flat`` is below the product of all."""
    parts: list[Expr] = []
    for d, n in enumerate(dims):
        stride = as_dim(math.prod(dims[d + 1 :]))
        quotient = binary("floordiv", flat, stride)
        parts.append(binary("floormod", quotient, n) if d else quotient)
    return parts


def _lower_identity(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    return (pointwise(call, "", x.shape, lambda *index: x[index]),)


OPERATORS = family(
    Operator("Reshape", OpKind.VIEW, _infer_reshape, _lower_reshape),
    Operator("Identity", OpKind.VIEW, same_type, _lower_identity),
)
