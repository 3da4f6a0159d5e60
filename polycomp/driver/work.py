"""What a kernel does, for profiles, for errors and for deciding what to compile first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polycomp.expr import Binary, CheckedIndex, Const, Expr, Reduce, Unary, loads, simplify, walk
from polycomp.te import Dim, Tensor, topological_order


def flops(outputs: Sequence[Tensor]) -> Dim:
    """Floating-point operations to compute ``outputs`` once, each tensor once; a multiply-accumulate counts 2.

    Elementary functions count as one operation each.
    """
    return _total([_tensor_flops(t) for t in topological_order(outputs) if t.body is not None])


def moved_bytes(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Dim:
    """Bytes of all inputs and outputs: what has to move at least, when every input is read."""
    return _total([tensor_bytes(t) for t in (*inputs, *outputs)])


def tensor_bytes(tensor: Tensor) -> Dim:
    """The size of a tensor in memory."""
    return product((*tensor.shape, tensor.dtype.bytes))


def chosen_from(names: Sequence[str], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[str, ...]:
    """The names of the inputs of which elements are taken at indices that are data."""
    bodies = [t.body for t in topological_order(outputs) if t.body is not None]
    found = {load.source for body in bodies for load in loads(body) if any(map(_is_checked, load.indices))}
    return tuple(name for name, tensor in zip(names, inputs, strict=True) if tensor in found)


def _is_checked(index: Expr) -> bool:
    return any(isinstance(e, CheckedIndex) for e in walk(index))


def product(dims: Sequence[Dim]) -> Dim:
    """The product of sizes."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return known(result)


def known(dim: Dim) -> Dim:
    """``dim`` simplified, as an int when it is one."""
    if not isinstance(dim, Expr):
        return dim
    simple = simplify(dim)
    return int(simple.value) if isinstance(simple, Const) else simple


def magnitude(dim: Dim) -> float:
    """``dim`` as a number to compare amounts of work by; an unknown size counts as large."""
    return float(dim) if not isinstance(dim, Expr) else math.inf


def _tensor_flops(tensor: Tensor) -> Dim:
    body = tensor.body
    points = product((*tensor.shape, *(a.extent for a in tensor.reduce_axes)))
    operations = int(isinstance(body, Reduce) and body.dtype.is_float)
    if body is not None:
        operations += sum(isinstance(e, Binary | Unary) and e.dtype.is_float for e in walk(body))
    return points * operations


def _total(dims: Sequence[Dim]) -> Dim:
    result: Dim = 0
    for dim in dims:
        result = result + dim
    return known(result)
