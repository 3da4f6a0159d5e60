"""Layers of neural networks from the operator library. Data is ``[batch, channels, spatial...]`` where it has those."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Expr
from polycomp.tracing.numpy_functions import where as choose
from polycomp.tracing.operands import as_tensor, cast, result_type, trace_of
from polycomp.tracing.shaping import axis_number, expand_dims, swapaxes
from polycomp.tracing.sizes import dim_of
from polycomp.tracing.ufuncs import call_ufunc, emit
from polycomp.tracing.value import where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor
    from polycomp.tracing.trace import Trace


def floats(*operands: Any) -> list[Tensor]:
    """The operands in one float type; integers become float64, as numpy's functions make them."""
    trace, dtype = trace_of(*operands), result_type(*operands)
    wanted = dtype if dtype.kind == "f" else np.dtype(np.float64)
    return [as_tensor(trace, o, wanted) for o in operands]


def activation(op: str, **attributes: Any) -> Callable[..., Tensor]:
    """An elementwise operator on floats."""

    def rule(x: Any) -> Tensor:
        return emit(op, *floats(x), **attributes)

    return rule


def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``, of integers too."""
    return emit("Relu", x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """``x`` where it is positive, else ``negative_slope * x``."""
    return emit("LeakyRelu", *floats(x), alpha=float(negative_slope))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``."""
    return emit("Elu", *floats(x), alpha=float(alpha))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` (arXiv:1606.08415); ``approximate="tanh"`` for the formula with tanh."""
    if approximate not in ("none", "tanh"):
        raise DTypeError(f"{where()}: gelu's approximate is 'none' or 'tanh', not {approximate!r}")
    return emit("Gelu", *floats(x), approximate=approximate)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``axis``, shifted so that nothing overflows."""
    return emit("Softmax", *floats(x), axis=axis_number(axis, x.ndim))


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of :func:`softmax`."""
    return emit("LogSoftmax", *floats(x), axis=axis_number(axis, x.ndim))


def layer_norm(x: Tensor, scale: Any = None, bias: Any = None, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
    """Normalised over ``axis`` and all dimensions after it (arXiv:1607.06450), then scaled and shifted."""
    (data,) = floats(x)
    return emit("LayerNormalization", data, *_affine(data, scale, bias), axis=axis_number(axis, x.ndim),
                epsilon=float(epsilon))  # fmt: skip


def _affine(data: Tensor, scale: Any, bias: Any) -> list[Tensor]:
    if scale is None and bias is None:
        return []
    weights = [as_tensor(data.owner, 1 if scale is None else scale, data.dtype)]
    return weights if bias is None else [*weights, as_tensor(data.owner, bias, data.dtype)]


def rms_norm(x: Tensor, scale: Any = None, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
    """Divided by the root of the mean square over ``axis`` and all dimensions after it (arXiv:1910.07467)."""
    (data,) = floats(x)
    weights = _affine(data, scale, None)
    return emit("RMSNormalization", data, *weights, axis=axis_number(axis, x.ndim), epsilon=float(epsilon))


def batch_norm(x: Tensor, mean: Any, var: Any, scale: Any, bias: Any, epsilon: float = 1e-5) -> Tensor:
    """Channels normalised by known means and variances, ``[C]`` each."""
    data, *parameters = floats(x, scale, bias, mean, var)
    return emit("BatchNormalization", data, *parameters, epsilon=float(epsilon))


def group_norm(x: Tensor, groups: int, scale: Any, bias: Any, epsilon: float = 1e-5) -> Tensor:
    """Groups of channels normalised by their own mean and variance (arXiv:1803.08494); scale and bias ``[C]``."""
    data, *parameters = floats(x, scale, bias)
    return emit("GroupNormalization", data, *parameters, num_groups=int(groups), epsilon=float(epsilon))


def instance_norm(x: Tensor, scale: Any, bias: Any, epsilon: float = 1e-5) -> Tensor:
    """Every channel of every sample normalised on its own (arXiv:1607.08022); scale and bias ``[C]``."""
    data, *parameters = floats(x, scale, bias)
    return emit("InstanceNormalization", data, *parameters, epsilon=float(epsilon))


def _per_dimension(value: Any, rank: int, what: str) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * rank
    if len(values) != rank or not all(isinstance(v, int) for v in values):
        raise ShapeError(f"{where()}: {what} must be an int, or {rank} of them, not {value!r}")
    return values


def _pads(padding: Any, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int],
          dilations: Sequence[int]) -> tuple[int, ...]:  # fmt: skip
    """Pads before all spatial dimensions, then after them."""
    rank = len(kernel)
    if padding == "valid":
        return (0,) * (2 * rank)
    if padding == "same":
        pairs = [_same(*each) for each in zip(sizes, kernel, strides, dilations, strict=True)]
    elif isinstance(padding, tuple | list) and any(isinstance(p, tuple | list) for p in padding):
        pairs = [(int(before), int(after)) for before, after in padding]
    else:
        pairs = [(p, p) for p in _per_dimension(padding, rank, "padding")]
    if len(pairs) != rank:
        raise ShapeError(f"{where()}: padding must have a pair for each of {rank} spatial dimensions, not {padding!r}")
    return (*(before for before, _ in pairs), *(after for _, after in pairs))


def _same(size: Any, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """So that there is a window for every ``stride``-th element; an odd pad goes to the end."""
    extent = (kernel - 1) * dilation + 1
    if isinstance(size, Expr) and stride != 1:
        raise ShapeError(f"{where()}: padding 'same' with a stride needs known sizes, not the open size {size}")
    windows = size if stride == 1 else -(-size // stride)
    total = extent - 1 if stride == 1 else max(0, (windows - 1) * stride + extent - size)
    return total // 2, total - total // 2


def conv(x: Any, w: Any, b: Any = None, *, strides: Any = 1, padding: Any = 0, dilation: Any = 1,
         groups: int = 1) -> Tensor:  # fmt: skip
    """Convolution in one to three dimensions: x ``[N, C, ...]``, w ``[K, C / groups, ...]``, b ``[K]``.

    ``padding`` is ``"valid"``, ``"same"``, an int, one int per dimension, or one pair (before, after) per dimension.
    """
    operands = floats(x, w) if b is None else floats(x, w, b)
    data, kernel = operands[0].type.shape[2:], [_known(k) for k in operands[1].type.shape[2:]]
    steps = _per_dimension(strides, len(kernel), "strides")
    gaps = _per_dimension(dilation, len(kernel), "dilation")
    if len(data) != len(kernel):
        raise ShapeError(f"{where()}: weights {operands[1].type} do not fit data {operands[0].type}")
    pads = _pads(padding, data, kernel, steps, gaps)
    return emit("Conv", *operands, strides=steps, dilations=gaps, group=int(groups), pads=pads)


def _known(size: Any) -> int:
    if isinstance(size, Expr):
        raise ShapeError(f"{where()}: a window needs known sizes, not the open size {size}")
    return int(size)


def conv_transpose(x: Any, w: Any, b: Any = None, *, strides: Any = 1, padding: Any = 0, dilation: Any = 1,
                   groups: int = 1, output_padding: Any = 0) -> Tensor:  # fmt: skip
    """The transpose of a convolution: x ``[N, C, ...]``, w ``[C, K / groups, ...]``, b ``[K]``."""
    operands = floats(x, w) if b is None else floats(x, w, b)
    kernel = [_known(k) for k in operands[1].type.shape[2:]]
    rank = len(kernel)
    steps, gaps = _per_dimension(strides, rank, "strides"), _per_dimension(dilation, rank, "dilation")
    pads = _pads(padding, operands[0].type.shape[2:], kernel, steps, gaps)
    extra = _per_dimension(output_padding, rank, "output_padding")
    return emit("ConvTranspose", *operands, strides=steps, dilations=gaps, group=int(groups), pads=pads,
                output_padding=extra)  # fmt: skip


def _pool(op: str, x: Tensor, window: Any, strides: Any, padding: Any, **attributes: Any) -> Tensor:
    rank = x.ndim - 2
    kernel = _per_dimension(window, rank, "the window")
    steps = kernel if strides is None else _per_dimension(strides, rank, "strides")
    pads = _pads(padding, x.type.shape[2:], kernel, steps, (1,) * rank)
    return emit(op, x, kernel_shape=kernel, strides=steps, pads=pads, **attributes)


def max_pool(x: Tensor, window: Any, strides: Any = None, padding: Any = 0, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window; strides are the window's size by default."""
    return _pool("MaxPool", x, window, strides, padding, dilations=(1,) * (x.ndim - 2), ceil_mode=int(ceil_mode))


def average_pool(x: Tensor, window: Any, strides: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = False) -> Tensor:  # fmt: skip
    """The mean of each window, of its elements inside the data only unless ``count_include_pad``."""
    (data,) = floats(x)
    return _pool("AveragePool", data, window, strides, padding, dilations=(1,) * (x.ndim - 2),
                 ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad))  # fmt: skip


def attention(q: Any, k: Any, v: Any, mask: Any = None, *, causal: bool = False, scale: Any = None) -> Tensor:
    """``softmax(q @ k.T * scale) @ v`` (arXiv:1706.03762): q ``[..., L, E]``, k ``[..., S, E]``, v ``[..., S, F]``.

    A bool ``mask`` says which scores count, any other is added to them; ``causal`` hides what comes after a query's own
    position, counted from the end of both. ``scale`` is ``1 / sqrt(E)`` by default.
    """
    query, key, value = floats(q, k, v)
    factor = _inverse_root(query) if scale is None else scale
    scores = emit("MatMul", call_ufunc(np.multiply, query, factor), swapaxes(key, -1, -2))
    if causal:
        scores = choose(_not_later(scores), scores, -math.inf)
    if mask is not None:
        scores = _masked(scores, as_tensor(scores.owner, mask))
    return emit("MatMul", softmax(scores, -1), value)


def _inverse_root(query: Tensor) -> Any:
    width = query.shape[-1]
    return 1 / math.sqrt(width) if isinstance(width, int) else width**-0.5


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.kind is DType.BOOL:
        return choose(mask, scores, -math.inf)
    return emit("Add", scores, cast(mask, scores.dtype))


def _not_later(scores: Tensor) -> Tensor:
    rows, columns = scores.shape[-2:]
    row = expand_dims(arange_in(scores.owner, columns - rows, columns), -1)
    return call_ufunc(np.greater_equal, row, arange_in(scores.owner, 0, columns))


def arange_in(trace: Trace, start: Any, stop: Any, step: int = 1, dtype: DType = DType.INT64) -> Tensor:
    """The integers from ``start`` to before ``stop``."""
    count = trace.dim((dim_of(stop) - dim_of(start) + step - (1 if step > 0 else -1)) // step)
    known = count if isinstance(count, Expr) else max(0, count)
    attributes = {"start": trace.dim(dim_of(start)), "size": known, "delta": step, "dtype": dtype}
    return trace.emit("Range", [], attributes)


def one_hot(x: Tensor, classes: int, dtype: Any = np.float32) -> Tensor:
    """``[..., classes]``: 1 at the index that ``x`` has, 0 elsewhere."""
    positions = x.owner.constant(np.arange(classes, dtype=x.dtype))
    return cast(call_ufunc(np.equal, expand_dims(x, -1), positions), dtype)


def global_average_pool(x: Tensor) -> Tensor:
    """The mean of every channel, spatial dimensions kept as 1."""
    return emit("GlobalAveragePool", *floats(x))


def global_max_pool(x: Tensor) -> Tensor:
    """The largest element of every channel, spatial dimensions kept as 1."""
    return emit("GlobalMaxPool", x)
