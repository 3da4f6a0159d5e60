"""Tensor expressions: what each element of a tensor is, with no word on the order of computing it."""

from polycomp.te.tensor import (
    Axis,
    Dim,
    Tensor,
    all,
    any,
    compute,
    max,
    min,
    placeholder,
    prod,
    recurrence,
    reduce_axis,
    reduce_identity,
    size,
    sum,
    topological_order,
)

__all__ = [
    "Axis",
    "Dim",
    "Tensor",
    "all",
    "any",
    "compute",
    "max",
    "min",
    "placeholder",
    "prod",
    "recurrence",
    "reduce_axis",
    "reduce_identity",
    "size",
    "sum",
    "topological_order",
]
