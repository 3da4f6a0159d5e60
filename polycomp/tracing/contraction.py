"""Products of tensors: matmul and its relatives, and einsum lowered to transposes, reshapes and matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.te import Dim
from polycomp.tracing.operands import as_tensor, cast, result_type, trace_of
from polycomp.tracing.reductions import sum as sum_over
from polycomp.tracing.shaping import axis_number, axis_numbers, expand_dims, reshape, transpose
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor


def _promoted(*operands: Any) -> list[Tensor]:
    trace, dtype = trace_of(*operands), result_type(*operands)
    return [as_tensor(trace, o, dtype) for o in operands]


def matmul(a: Any, b: Any) -> Tensor:
    """numpy.matmul; of bools, whether any product is true."""
    left, right = _promoted(a, b)
    if not left.ndim or not right.ndim:
        raise ShapeError(f"{where()}: matmul takes no scalars; multiply with *")
    if left.kind is DType.BOOL:
        return cast(emit("MatMul", cast(left, np.int32), cast(right, np.int32)), bool)
    return emit("MatMul", left, right)


def dot(a: Any, b: Any) -> Tensor:
    """numpy.dot: the last dimension of ``a`` with the last but one of ``b``."""
    left, right = _promoted(a, b)
    if not left.ndim or not right.ndim:
        return call_ufunc(np.multiply, left, right)
    if left.ndim <= 2 and right.ndim <= 2:
        return matmul(left, right)
    return tensordot(left, right, ([left.ndim - 1], [max(0, right.ndim - 2)]))


def inner(a: Any, b: Any) -> Tensor:
    """numpy.inner: the last dimensions of both."""
    left, right = _promoted(a, b)
    if not left.ndim or not right.ndim:
        return call_ufunc(np.multiply, left, right)
    return tensordot(left, right, ([left.ndim - 1], [right.ndim - 1]))


def outer(a: Any, b: Any) -> Tensor:
    """numpy.outer, of the flattened operands."""
    left, right = _promoted(a, b)
    return call_ufunc(np.multiply, reshape(left, -1, 1), reshape(right, 1, -1))


def vdot(a: Any, b: Any) -> Tensor:
    """numpy.vdot of real tensors."""
    left, right = _promoted(a, b)
    return matmul(reshape(left, -1), reshape(right, -1))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """numpy.tensordot."""
    left, right = _promoted(a, b)
    pairs = _contracted(left, right, axes)
    letters = iter(_LETTERS)
    of_left = [next(letters) for _ in range(left.ndim)]
    of_right = [next(letters) for _ in range(right.ndim)]
    for i, j in zip(*pairs, strict=True):
        of_right[j] = of_left[i]
    rest = [x for d, x in enumerate(of_left) if d not in pairs[0]]
    rest += [x for d, x in enumerate(of_right) if d not in pairs[1]]
    return _contract([left, right], ["".join(of_left), "".join(of_right)], "".join(rest))


def _contracted(left: Tensor, right: Tensor, axes: Any) -> tuple[list[int], list[int]]:
    if isinstance(axes, int):
        return list(range(left.ndim - axes, left.ndim)), list(range(axes))
    first, second = ([a] if isinstance(a, int) else list(a) for a in axes)
    return [axis_number(a, left.ndim) for a in first], [axis_number(a, right.ndim) for a in second]


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """numpy.einsum with the subscripts as one string: repeated labels, implicit outputs and ``...`` included.

    Operands are contracted from left to right, each pair as one (batched) matrix product.
    """
    tensors = _promoted(*operands)
    labels, output = _parse(subscripts, [t.ndim for t in tensors])
    if tensors[0].kind is DType.BOOL:
        return cast(_contract([cast(t, np.int32) for t in tensors], labels, output), bool)
    return _contract(tensors, labels, output)


def _parse(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Labels per operand and of the output, one letter per dimension; ``...`` becomes letters that are not used."""
    text = subscripts.replace(" ", "")
    left, arrow, output = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ShapeError(f"{where()}: einsum {subscripts!r} names {len(terms)} operands, but {len(ranks)} were given")
    free = [c for c in _LETTERS if c not in text]
    wide = max((r - len(t) + 3 for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    dots = "".join(free[: max(wide, 0)])
    labels = [_filled(t, r, dots, subscripts) for t, r in zip(terms, ranks, strict=True)]
    if not arrow:
        joined = "".join(t.replace("...", "") for t in terms)
        output = "..." + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    output = output.replace("...", dots)
    unknown = sorted(set(output) - set("".join(labels)))
    if unknown or len(set(output)) < len(output):
        raise ShapeError(f"{where()}: the output of einsum {subscripts!r} must name different labels of the operands")
    return labels, output


def _filled(term: str, rank: int, dots: str, subscripts: str) -> str:
    count = rank - len(term.replace("...", ""))
    if count < 0 or (count > 0 and "..." not in term):
        raise ShapeError(f"{where()}: einsum {subscripts!r} names {term!r} for an operand of {rank} dimensions")
    return term.replace("...", dots[len(dots) - count :] if count else "")


def _contract(tensors: Sequence[Tensor], labels: Sequence[str], output: str) -> Tensor:
    pairs = [_diagonal(t, text) for t, text in zip(tensors, labels, strict=True)]
    _check_sizes(pairs)
    value, text = pairs[0]
    for position, (other, names) in enumerate(pairs[1:], 1):
        kept = set(output).union(*(later for _, later in pairs[position + 1 :]))
        value, text = _pair(value, text, other, names, kept)
    value, text = _summed(value, text, set(output))
    return transpose(value, [text.index(c) for c in output])


def _check_sizes(pairs: Sequence[tuple[Tensor, str]]) -> None:
    sizes: dict[str, Dim] = {}
    for tensor, text in pairs:
        for label, size in zip(text, tensor.type.shape, strict=True):
            known = sizes.setdefault(label, size)
            if known == 1:
                sizes[label] = size
            elif size not in (1, known) and isinstance(size, int) and isinstance(known, int):
                raise ShapeError(f"{where()}: the label {label!r} stands for the sizes {known} and {size}")


def _diagonal(x: Tensor, text: str) -> tuple[Tensor, str]:
    """A label twice in one operand: its diagonal, which is every (n + 1)-th element of the two dimensions as one."""
    for label in text:
        if text.count(label) > 1:
            i = text.index(label)
            j = text.index(label, i + 1)
            size, other = x.type.shape[i], x.type.shape[j]
            if size != other:
                raise ShapeError(f"{where()}: the label {label!r} stands for the sizes {size} and {other}")
            rest = [d for d in range(x.ndim) if d not in (i, j)]
            moved = transpose(x, [i, j, *rest])
            flat = reshape(moved, (size * size, *moved.type.shape[2:]))
            return _diagonal(flat[:: _step(size)], label + "".join(text[d] for d in rest))
    return x, text


def _step(size: Dim) -> int:
    if not isinstance(size, int):
        raise ShapeError(f"{where()}: the diagonal of dimensions of the open size {size} cannot be compiled")
    return size + 1


def _summed(x: Tensor, text: str, kept: set[str]) -> tuple[Tensor, str]:
    axes = tuple(d for d, c in enumerate(text) if c not in kept)
    if not axes:
        return x, text
    return sum_over(x, axes, dtype=x.dtype), "".join(c for c in text if c in kept)


def _pair(a: Tensor, of_a: str, b: Tensor, of_b: str, kept: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the labels that nothing else needs."""
    a, of_a = _summed(a, of_a, kept | set(of_b))
    b, of_b = _summed(b, of_b, kept | set(of_a))
    summed = [c for c in of_a if c in of_b and c not in kept]
    batch = [c for c in of_a if c in of_b and c in kept]
    rows = [c for c in of_a if c not in of_b]
    columns = [c for c in of_b if c not in of_a]
    text = "".join([*batch, *rows, *columns])
    if not summed or _has_ones(a, of_a, summed) or _has_ones(b, of_b, summed):
        left, right = _aligned(a, of_a, text, summed), _aligned(b, of_b, text, summed)
        return sum_over(call_ufunc(np.multiply, left, right), _last(len(text), summed), dtype=a.dtype), text
    left = _matrix(a, of_a, batch, rows, summed)
    right = _matrix(b, of_b, batch, summed, columns)
    product = emit("MatMul", left, right)
    sizes = [_size(a, of_a, c) for c in rows] + [_size(b, of_b, c) for c in columns]
    return reshape(product, (*product.type.shape[: len(batch)], *sizes)), text


def _last(start: int, summed: Sequence[str]) -> tuple[int, ...]:
    return tuple(range(start, start + len(summed)))


def _has_ones(x: Tensor, text: str, labels: Sequence[str]) -> bool:
    """Whether a size is 1, which may be broadcast against the other operand's."""
    return any(_size(x, text, c) == 1 for c in labels)


def _size(x: Tensor, text: str, label: str) -> Dim:
    return x.type.shape[text.index(label)]


def _aligned(x: Tensor, own: str, text: str, summed: Sequence[str]) -> Tensor:
    """``x`` with its dimensions in the order of ``text`` and ``summed``, those that it lacks of size 1."""
    order = [c for c in (*text, *summed) if c in own]
    moved = transpose(x, [own.index(c) for c in order])
    missing = tuple(d for d, c in enumerate((*text, *summed)) if c not in own)
    return expand_dims(moved, missing) if missing else moved


def _matrix(x: Tensor, text: str, batch: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> Tensor:
    """``x`` as [batch..., rows, columns], several labels merged to one dimension."""
    moved = transpose(x, [text.index(c) for c in (*batch, *rows, *columns)])
    shape = moved.type.shape
    middle = len(batch) + len(rows)
    merged = (math.prod(shape[len(batch) : middle]), math.prod(shape[middle:]))
    return reshape(moved, (*shape[: len(batch)], *merged))


def trace(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal."""
    return sum_over(diagonal(x, offset, axis1, axis2), -1)


def diagonal(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The diagonal of two dimensions that begins ``offset`` columns to the right, or rows down, as the last one."""
    i, j = axis_numbers((axis1, axis2), x.ndim)  # refuses one dimension twice
    rest = [d for d in range(x.ndim) if d not in (i, j)]
    # The dimensions in the order that the caller gave: an offset moves along the second.
    order = [axis_number(axis1, x.ndim), axis_number(axis2, x.ndim)]
    table = transpose(x, [*order, *rest])[max(0, -offset) :, max(0, offset) :]
    smaller = min(table.shape[0], table.shape[1])
    square = table[:smaller, :smaller]
    names = _LETTERS[: len(rest) + 1]
    value, text = _diagonal(square, names[0] * 2 + names[1:])
    return transpose(value, [*range(1, len(text)), 0])
