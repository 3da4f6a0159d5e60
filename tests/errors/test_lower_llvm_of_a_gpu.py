"""The LLVM IR of a function for a GPU, and the CUDA C of one for a CPU."""

from __future__ import annotations

from mistakes import array, fails

import polycomp as pc
from polycomp.errors import TargetError


def double(x):  # type: ignore[no-untyped-def]
    return x * 2


def test_lower_llvm_of_a_gpu() -> None:
    message = (
        "'double' is lowered for a GPU, whose code is not made by LLVM: look at .cuda, or lower a function of another "
        "target"
    )
    with fails(TargetError, message):
        _ = pc.jit(target="cuda")(double).lower(array(4)).llvm


def test_lower_cuda_of_a_cpu() -> None:
    message = (
        "'double' is lowered for a CPU, which has no CUDA C: look at .llvm, or lower a function of "
        '@jit(target="cuda")'
    )
    with fails(TargetError, message):
        _ = pc.jit(double).lower(array(4)).cuda
