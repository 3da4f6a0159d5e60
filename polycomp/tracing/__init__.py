"""Tracing: numpy-style Python functions to graphs of canonical operators."""

from polycomp.tracing.annotations import TensorSpec
from polycomp.tracing.sizes import Size
from polycomp.tracing.tensor import Tensor
from polycomp.tracing.trace import Trace
from polycomp.tracing.value import Value, where

__all__ = ["Size", "Tensor", "TensorSpec", "Trace", "Value", "where"]
