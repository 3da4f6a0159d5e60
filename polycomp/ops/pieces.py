"""Tensors that are contiguous pieces of another: where in its memory they lie.

A Concat whose operands are pieces of its result needs no code when they are written there; a Slice or Split whose
results are pieces of its operand needs none at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from polycomp.graph.ir import Call, TensorType
from polycomp.ops.common import axis_of, product, same_dim
from polycomp.ops.windows import as_dim
from polycomp.target import ALIGNMENT
from polycomp.te import Dim


def pieces(call: Call) -> tuple[Dim, ...] | None:
    """The byte offsets of a Concat's operands in its result, or of a Slice's or Split's results in its operand.

    None when some of them may be scattered, and for other operators.
    """
    match call.op:
        case "Concat":
            axis = axis_of(call, call.input(0).rank)
            return _side_by_side(call.input(0), axis, [call.input(p).shape[axis] for p in range(len(call.inputs))])
        case "Split":
            return _side_by_side(call.input(0), axis_of(call, call.input(0).rank), call.attr("sizes"))
        case "Slice":
            return _cut_out(call.input(0), call.attr("starts"), call.attr("steps"), call.attr("sizes"))
    return None


def is_aligned(offset: Dim, to: int = ALIGNMENT) -> bool:
    """Whether the byte ``offset`` is surely a multiple of ``to``: by default, whether a kernel may write there. What a
    CPU's kernel reads need only be aligned to its elements."""
    return as_dim(offset % to) == 0


def _side_by_side(kind: TensorType, axis: int, sizes: Iterable[Dim]) -> tuple[Dim, ...] | None:
    """Tensors like ``kind``, but of ``sizes`` along ``axis``, one after the other."""
    if any(n != 1 for n in kind.shape[:axis]):
        return None
    row = product((*kind.shape[axis + 1 :], kind.dtype.bytes))
    offsets: list[Dim] = []
    end: Dim = 0
    for size in sizes:
        offsets.append(end)
        end = as_dim(end + size * row)
    return tuple(offsets)


def _cut_out(
    x: TensorType, starts: Sequence[Dim], steps: Sequence[int], sizes: Sequence[Dim]
) -> tuple[Dim, ...] | None:
    """A slice is contiguous when one dimension at most is taken in part, single indices of those before it, and all of
    those behind it."""
    cut = [d for d, n in enumerate(x.shape) if not _is_all(n, starts[d], steps[d], sizes[d])]
    inner = cut[-1] if cut else 0
    if any(sizes[d] != 1 for d in range(inner)) or (cut and steps[inner] != 1 and sizes[inner] != 1):
        return None
    strides = [product((*x.shape[d + 1 :], x.dtype.bytes)) for d in range(x.rank)]
    return (as_dim(sum(start * stride for start, stride in zip(starts, strides, strict=True))),)


def _is_all(n: Dim, start: Dim, step: int, size: Dim) -> bool:
    return start == 0 and (step == 1 or size == 1) and same_dim(n, size)
