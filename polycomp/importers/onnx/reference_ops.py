"""Operators of old opsets that the ONNX reference implementation computes by the rules of newer ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx.defs
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]

_ONE_AXIS = 13
_TRAINING_MODE = 14


class Softmax(OpRun):
    """Before opset 13 the input counts as a matrix of the dimensions before the axis and the others."""

    op_domain = ""
    op_schema = onnx.defs.get_schema("Softmax", _ONE_AXIS - 1)

    def _run(self, x: Array, axis: int = 1) -> tuple[Array]:
        return (np.exp(_log_softmax(x, axis)),)


class LogSoftmax(OpRun):
    """As Softmax."""

    op_domain = ""
    op_schema = onnx.defs.get_schema("LogSoftmax", _ONE_AXIS - 1)

    def _run(self, x: Array, axis: int = 1) -> tuple[Array]:
        return (_log_softmax(x, axis),)


class BatchNormalization(OpRun):
    """Before opset 14 one output says that the given mean and variance are used, not those of the batch."""

    op_domain = ""
    op_schema = onnx.defs.get_schema("BatchNormalization", _TRAINING_MODE - 1)

    def _run(
        self, x: Array, *statistics: Array, epsilon: float = 1e-5, momentum: float = 0.9, spatial: int = 1
    ) -> tuple[Array]:
        shape = (-1, *[1] * (x.ndim - 2))
        scale, bias, mean, variance = (s.reshape(shape) for s in statistics)
        return ((scale * (x - mean) / np.sqrt(variance + epsilon) + bias).astype(x.dtype),)


def corrections(opset: int) -> list[type[OpRun]]:
    """The operators to compute a model of ``opset`` with instead of the reference implementation's own."""
    softmax = [Softmax, LogSoftmax] if opset < _ONE_AXIS else []
    return softmax + ([BatchNormalization] if opset < _TRAINING_MODE else [])


def _log_softmax(x: Array, axis: int) -> Array:
    split = axis if axis >= 0 else axis + x.ndim
    rows = x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))
    shifted = rows - rows.max(1, keepdims=True, initial=-np.inf)
    result: Array = (shifted - np.log(np.exp(shifted).sum(1, keepdims=True))).reshape(x.shape)
    return result
