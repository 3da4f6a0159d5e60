"""Executes CUDA C on the CPU, for tests; see README.md."""

from cuda_harness.build import HarnessError, harness_available, sanitizers_available
from cuda_harness.device import HarnessDevice
from cuda_harness.run import CpuKernels, LaunchError, Order, SanitizedKernels, compile_for_cpu

__all__ = [
    "CpuKernels",
    "HarnessDevice",
    "HarnessError",
    "LaunchError",
    "Order",
    "SanitizedKernels",
    "compile_for_cpu",
    "harness_available",
    "sanitizers_available",
]
