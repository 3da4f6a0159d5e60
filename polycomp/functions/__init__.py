"""Compiled Python functions: ``@jit``."""

from polycomp.functions.function import JitFunction, jit
from polycomp.functions.lowered import Lowered

__all__ = ["JitFunction", "Lowered", "jit"]
