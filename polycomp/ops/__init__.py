"""The operator library: for each canonical operator a shape rule and its definition as tensor expressions."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from polycomp.graph.ir import Operator
from polycomp.ops import (
    blocked,
    convolution,
    elementwise,
    integer,
    matmul,
    movement,
    normalization,
    pooling,
    quantization,
    reductions,
    resize,
    response,
    softmax,
    unary,
    views,
    winograd,
)
from polycomp.ops.registry import merge

__all__ = ["operators"]

_FAMILIES = (
    blocked,
    convolution,
    elementwise,
    integer,
    matmul,
    movement,
    normalization,
    pooling,
    quantization,
    reductions,
    resize,
    response,
    softmax,
    unary,
    views,
    winograd,
)


@functools.cache
def operators() -> Mapping[str, Operator]:
    """All operators by canonical name."""
    return merge(module.OPERATORS for module in _FAMILIES)
