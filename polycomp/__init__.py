"""polycomp compiles trained models (ONNX) to small, fast modules that run without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polycomp.api import Module, compile, load
    from polycomp.decisions import Decisions
    from polycomp.errors import PolycompError
    from polycomp.expr import cast, select, unary
    from polycomp.functions import jit
    from polycomp.native import NativeFunction, build
    from polycomp.schedules import Schedule, Trace
    from polycomp.te import compute, placeholder, recurrence, reduce_axis, size
    from polycomp.tracing import Tensor
    from polycomp.tracing.functions import *  # noqa: F403

__version__ = "0.1.0"

_FUNCTIONS = (
    "abs", "all", "any", "arange", "argmax", "argmin", "attention", "average_pool", "batch_norm", "broadcast_to",
    "ceil", "clip", "concatenate", "conv", "conv_transpose", "cos", "cosh", "cumsum", "dot", "einsum", "elu", "erf",
    "exp", "expand_dims", "expm1", "flip", "floor", "full", "full_like", "gelu", "global_average_pool",
    "global_max_pool", "group_norm", "hard_swish", "instance_norm", "layer_norm", "leaky_relu", "log", "log1p",
    "log2", "log_softmax", "logsumexp", "matmul", "max", "max_pool", "maximum", "mean", "min", "minimum", "mish",
    "moveaxis", "one_hot", "ones", "ones_like", "pad", "power", "prod", "relu", "repeat", "reshape", "rms_norm",
    "roll", "sigmoid", "silu", "sin", "sinh", "softmax", "softplus", "split", "sqrt", "squeeze", "stack", "std",
    "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh", "tensordot", "tile", "transpose", "var", "where",
    "zeros", "zeros_like",
)  # fmt: skip
"""On arrays while tracing; some build expressions of the schedule language too."""
__all__ = [
    "Decisions",
    "Module",
    "NativeFunction",
    "PolycompError",
    "Schedule",
    "Tensor",
    "Trace",
    "__version__",
    "build",
    "cast",
    "compile",
    "compute",
    "jit",
    "load",
    "placeholder",
    "recurrence",
    "reduce_axis",
    "select",
    "size",
    "unary",
    *_FUNCTIONS,
]

# Names are looked up on first use (PEP 562), so that importing polycomp costs nothing that is not used.
_HOMES = {
    "compile": "polycomp.api",
    "load": "polycomp.runtime",
    "Module": "polycomp.runtime",
    "jit": "polycomp.functions",
    "Tensor": "polycomp.tracing",
    "Decisions": "polycomp.decisions",
    "PolycompError": "polycomp.errors",
    **dict.fromkeys(["Schedule", "Trace"], "polycomp.schedules"),
    **dict.fromkeys(["NativeFunction", "build"], "polycomp.native"),
    **dict.fromkeys(["compute", "placeholder", "recurrence", "reduce_axis", "size"], "polycomp.te"),
    **dict.fromkeys(["cast", "select", "unary"], "polycomp.expr"),
    **dict.fromkeys(_FUNCTIONS, "polycomp.tracing.functions"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polycomp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
