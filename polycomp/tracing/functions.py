"""The functions that polycomp offers beside numpy's own, on traced tensors.

On plain arrays they are evaluated at once. Those that the schedule language has too (``sum``, ``maximum``, ``exp``)
build expressions when they are given scalar expressions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from polycomp import te
from polycomp.dtypes import as_dtype
from polycomp.expr import Expr, unary
from polycomp.expr import maximum as expr_maximum
from polycomp.expr import minimum as expr_minimum
from polycomp.tracing import contraction, neural, numpy_functions, reductions, shaping
from polycomp.tracing.eager import is_traced, run_now
from polycomp.tracing.operands import as_tensor, trace_of
from polycomp.tracing.ufuncs import call_ufunc

Function = Callable[..., Any]


def _public(rule: Function, expression: Function | None = None, convert: bool = True) -> Function:
    """``rule`` for users: on arrays it is evaluated, on scalar expressions ``expression`` is built.

    ``convert``: the first operand becomes a tensor, should only another one be traced.
    """

    @functools.wraps(rule)
    def function(*args: Any, **kwargs: Any) -> Any:
        if expression is not None and any_expression(args):
            return expression(*args, **kwargs)
        if not is_traced(args, kwargs):
            return run_now(rule, args, kwargs)
        if convert:
            args = (as_tensor(trace_of(*args, *kwargs.values()), args[0]), *args[1:])
        return rule(*args, **kwargs)

    return function


def any_expression(operands: tuple[Any, ...]) -> bool:
    """Whether an operand is a scalar expression of the schedule language."""
    return True in [isinstance(o, Expr) for o in operands]


def _ufunc(ufunc: np.ufunc, expression: Function | None = None) -> Function:
    def rule(*operands: Any) -> Any:
        return call_ufunc(ufunc, *operands)

    rule.__name__ = rule.__qualname__ = ufunc.__name__
    rule.__doc__ = f"numpy.{ufunc.__name__}, elementwise."
    return _public(rule, expression, convert=False)


def _intrinsic(ufunc: np.ufunc, name: str) -> Function:
    return _ufunc(ufunc, lambda x: unary(name, x))


def _named(name: str, doc: str, rule: Function) -> Function:
    rule.__name__ = rule.__qualname__ = name
    rule.__doc__ = doc
    return _public(rule)


exp, expm1, log, log1p, log2, sqrt = (
    _intrinsic(u, u.__name__) for u in (np.exp, np.expm1, np.log, np.log1p, np.log2, np.sqrt)
)
sin, cos, tan, sinh, cosh, tanh = (
    _intrinsic(u, u.__name__) for u in (np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh)
)
floor, ceil = (_intrinsic(u, u.__name__) for u in (np.floor, np.ceil))
abs = _intrinsic(np.absolute, "abs")
maximum, minimum = _ufunc(np.maximum, expr_maximum), _ufunc(np.minimum, expr_minimum)
power = _ufunc(np.power)

erf = _named("erf", "The error function.", neural.activation("Erf"))
sigmoid = _named("sigmoid", "1 / (1 + exp(-x)).", neural.activation("Sigmoid"))
softplus = _named("softplus", "log(1 + exp(x)), without overflow.", neural.activation("Softplus"))
silu = _named("silu", "x * sigmoid(x) (arXiv:1702.03118).", neural.activation("Swish", alpha=1.0))
hard_swish = _named("hard_swish", "x * clip(x / 6 + 0.5, 0, 1).", neural.activation("HardSwish"))
mish = _named("mish", "x * tanh(softplus(x)) (arXiv:1908.08681).", neural.activation("Mish"))
relu, leaky_relu = _public(neural.relu), _public(neural.leaky_relu)
elu, gelu = _public(neural.elu), _public(neural.gelu)
softmax, log_softmax = _public(neural.softmax), _public(neural.log_softmax)
layer_norm, rms_norm = _public(neural.layer_norm), _public(neural.rms_norm)
batch_norm, group_norm = _public(neural.batch_norm), _public(neural.group_norm)
instance_norm = _public(neural.instance_norm)
conv, conv_transpose = _public(neural.conv), _public(neural.conv_transpose)
max_pool, average_pool = _public(neural.max_pool), _public(neural.average_pool)
global_average_pool, global_max_pool = _public(neural.global_average_pool), _public(neural.global_max_pool)
attention, one_hot = _public(neural.attention), _public(neural.one_hot)

sum, prod = _public(reductions.sum, te.sum), _public(reductions.prod, te.prod)
max, min = _public(reductions.max, te.max), _public(reductions.min, te.min)
all, any = _public(reductions.all, te.all), _public(reductions.any, te.any)
mean, var, std = _public(reductions.mean), _public(reductions.var), _public(reductions.std)
argmax, argmin = _public(reductions.argmax), _public(reductions.argmin)
cumsum, logsumexp = _public(reductions.cumsum), _public(reductions.logsumexp)

matmul, dot = _public(contraction.matmul), _public(contraction.dot)
tensordot = _public(contraction.tensordot)
einsum = _public(contraction.einsum, convert=False)

where = _public(numpy_functions.where, convert=False)
clip, take = _public(numpy_functions.clip), _public(numpy_functions.take)
flip, roll = _public(numpy_functions.flip), _public(numpy_functions.roll)
take_along_axis = _public(numpy_functions.take_along_axis)
zeros_like, ones_like = _public(numpy_functions.zeros_like), _public(numpy_functions.ones_like)
full_like = _public(numpy_functions.full_like)
reshape, transpose, moveaxis = _public(shaping.reshape), _public(shaping.transpose), _public(shaping.moveaxis)
swapaxes, expand_dims, squeeze = _public(shaping.swapaxes), _public(shaping.expand_dims), _public(shaping.squeeze)
broadcast_to, tile = _public(shaping.broadcast_to), _public(shaping.tile)
repeat, pad = _public(shaping.repeat), _public(shaping.pad)
concatenate = _public(shaping.concatenate, convert=False)
stack = _public(shaping.stack, convert=False)
split = _public(shaping.split)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = np.int64) -> Any:
    """numpy.arange of integers, also where a bound is an open size."""
    first, last = (0, start) if stop is None else (start, stop)
    if not is_traced(first, last):
        return np.arange(first, last, step, dtype=np.dtype(dtype))
    return neural.arange_in(trace_of(first, last), first, last, step, as_dtype(np.dtype(dtype)))


def full(shape: Any, value: Any, dtype: Any = np.float64) -> Any:
    """numpy.full, also where a size of ``shape`` is open."""
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    if not is_traced(*sizes, value):
        return np.full(sizes, value, dtype)
    trace = trace_of(*sizes, value)
    return shaping.full(trace, sizes, value, dtype)


def zeros(shape: Any, dtype: Any = np.float64) -> Any:
    """numpy.zeros, also where a size of ``shape`` is open."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = np.float64) -> Any:
    """numpy.ones, also where a size of ``shape`` is open."""
    return full(shape, 1, dtype)


__all__ = [
    "abs", "all", "any", "arange", "argmax", "argmin", "attention", "average_pool", "batch_norm", "broadcast_to",
    "ceil", "clip", "concatenate", "conv", "conv_transpose", "cos", "cosh", "cumsum", "dot", "einsum", "elu", "erf",
    "exp", "expand_dims", "expm1", "flip", "floor", "full", "full_like", "gelu", "global_average_pool",
    "global_max_pool", "group_norm", "hard_swish", "instance_norm", "layer_norm", "leaky_relu", "log", "log1p", "log2",
    "log_softmax", "logsumexp", "matmul", "max", "max_pool", "maximum", "mean", "min", "minimum", "mish", "moveaxis",
    "one_hot", "ones", "ones_like", "pad", "power", "prod", "relu", "repeat", "reshape", "rms_norm", "roll", "sigmoid",
    "silu", "sin", "sinh", "softmax", "softplus", "split", "sqrt", "squeeze", "stack", "std", "sum", "swapaxes",
    "take", "take_along_axis", "tan", "tanh", "tensordot", "tile", "transpose", "var", "where", "zeros", "zeros_like",
]  # fmt: skip
