"""Conv and ConvTranspose in one to three spatial dimensions.

A convolution is one contraction over an explicitly padded input. A transposed convolution is, for each remainder
("phase") of the output position modulo the stride, an ordinary dense convolution with every stride-th tap: no zeros
are stuffed between input elements and no tap is tested for divisibility (Shi et al., "Is the deconvolution layer the
same as a convolutional layer?", arXiv:1609.07009).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from polycomp import te
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Expr, compare, const, eq
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.windows import (
    FIRST_SPATIAL,
    Window,
    as_dim,
    axis_names,
    check_spatial,
    define,
    guarded,
    narrow,
    optional,
    output_sizes,
    pad_for_windows,
    pad_spatial,
    reduction_axes,
    required,
    spatial_names,
    widen,
    window_of,
)
from polycomp.te import Axis, Dim, Tensor


def _check_operands(call: Call) -> tuple[TensorType, TensorType]:
    x, w = call.input(0), call.input(1)
    check_spatial(call, w.rank - FIRST_SPATIAL, x.shape)
    if not x.dtype.is_float or w.dtype is not x.dtype:
        raise DTypeError(f"{call.op} {call.node!r}: data and weights must be of one float type, not {x} and {w}")
    return x, w


def _group(call: Call) -> int:
    return int(call.attr("group", 1))


def _infer_conv(call: Call) -> tuple[TensorType, ...]:
    """x [N, C, spatial...], w [K, C / group, kernel...], b [K] -> [N, K, spatial...]."""
    x, _ = _check_operands(call)
    return (TensorType(x.dtype, convolution_shape(call)),)


def convolution_shape(call: Call) -> tuple[Dim, ...]:
    """The shape of a convolution's result; raises ShapeError when data and weights do not fit each other."""
    x, w = call.input(0), call.input(1)
    check_spatial(call, w.rank - FIRST_SPATIAL, x.shape)
    group = _group(call)
    channels, outputs = x.shape[1], w.shape[0]
    expected = as_dim(w.shape[1] * group)
    known = isinstance(channels, int) and isinstance(expected, int)
    if (known and channels != expected) or not isinstance(outputs, int) or outputs % group:
        raise ShapeError(
            f"{call.op} {call.node!r}: weights of shape {list(w.shape)} in {group} groups do not fit an input of "
            f"shape {list(x.shape)}"
        )
    window = window_of(call, w.shape[FIRST_SPATIAL:])
    sizes = output_sizes(call, x.shape[FIRST_SPATIAL:], window)
    return (x.shape[0], outputs, *sizes)


def _lower_conv(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, w, b = _operands(inputs)
    (out,) = _infer_conv(call)
    total = convolve(call, x, w, out.shape, lambda data, weight, at: widen(data) * widen(weight))
    return (finish(call, total, b, out),)


def convolve(
    call: Call, x: Tensor, w: Tensor, shape: tuple[Dim, ...], product: Callable[..., Expr], fill: float = 0
) -> Tensor:
    """``NODE.sum``: the sums of ``product(element of x, element of w, its index)`` over windows of ``x`` with ``fill``
    around it."""
    window = window_of(call, w.shape[FIRST_SPATIAL:])
    group = _group(call)
    source = pad_for_windows(call, x, window, fill)
    depth, per_group = w.shape[1], _known(shape[1]) // group
    channel, taps = _reduction(depth, window.kernel, group)

    def body(n: Expr, k: Expr, *spatial: Expr) -> Expr:
        c: Expr = channel[0] if channel else const(0)
        data = source[(n, _first_channel(k, group, per_group, depth) + c, *window.at(spatial, taps))]
        return te.sum(product(data, w[(k, c, *taps)], (k, c, *taps)), (*channel, *taps))

    return define(f"{call.node}.sum", shape, ("n", "k", *spatial_names(window.rank)), body, call.node)


def _reduction(depth: Dim, kernel: Sequence[int], group: int) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """The axes over a group's input channels (none for depthwise) and over the kernel's taps."""
    taps = reduction_axes(kernel, spatial_names(len(kernel), "k"))
    return (() if group > 1 and depth == 1 else reduction_axes((depth,), ("c",))), taps


def _first_channel(k: Expr, group: int, per_group: int, depth: Dim) -> Expr:
    """The first input channel of output channel ``k``'s group: ``per_group`` outputs share ``depth`` inputs."""
    if group == 1:
        return const(0)
    return (k if per_group == 1 else k // per_group) * depth


def _operands(inputs: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor | None]:
    return required(inputs, 0), required(inputs, 1), optional(inputs, 2)


def _known(size: Dim) -> int:
    assert isinstance(size, int)
    return size


def finish(call: Call, total: Tensor, bias: Tensor | None, out: TensorType) -> Tensor:
    """``total`` plus a ``bias`` per channel (dimension 1, and the last one of blocked data), in ``out``'s dtype."""
    result = total if bias is None else _add_bias(call, total, bias)
    return narrow(result, out.dtype, f"{call.node}.cast", call.node)


def _add_bias(call: Call, total: Tensor, bias: Tensor) -> Tensor:
    def body(*index: Expr) -> Expr:
        channel = (index[1], index[-1]) if bias.rank == 2 else index[1]
        return total[index] + widen(bias[channel])

    return define(f"{call.node}.bias", total.shape, axis_names(total), body, call.node)


def _infer_transpose(call: Call) -> tuple[TensorType, ...]:
    """x [N, C, spatial...], w [C, K / group, kernel...], b [K] -> [N, K, spatial...]."""
    x, w = _check_operands(call)
    if isinstance(x.shape[1], int) and x.shape[1] != w.shape[0]:
        raise ShapeError(
            f"ConvTranspose {call.node!r}: weights of shape {list(w.shape)} need {w.shape[0]} input channels, "
            f"but the input has shape {list(x.shape)}"
        )
    window = window_of(call, w.shape[FIRST_SPATIAL:])
    extra = tuple(call.attr("output_padding") or (0,) * window.rank)
    pairs = enumerate(x.shape[FIRST_SPATIAL:])
    sizes = tuple(_transposed_size(size, window, d, extra[d]) for d, size in pairs)
    return (TensorType(x.dtype, (x.shape[0], as_dim(w.shape[1] * _group(call)), *sizes)),)


def _transposed_size(size: Dim, window: Window, d: int, extra: int) -> Dim:
    return as_dim((size - 1) * window.strides[d] + extra + window.extents[d] - window.begin[d] - window.end[d])


@dataclasses.dataclass(frozen=True)
class _Phases:
    """How one spatial dimension of a transposed convolution splits by stride.

    Output position ``o`` is step ``(o + pad) // stride - first`` of phase ``(o + pad) % stride``. Step ``q`` of phase
    ``r`` sums input ``q + first - t * dilation`` times kernel tap ``r + stride * t`` over ``t < taps``.
    """

    stride: int
    dilation: int
    pad: int
    taps: int
    steps: Dim

    @property
    def first(self) -> int:
        return self.pad // self.stride

    @property
    def reach(self) -> int:
        """Distance between the first and the last input element that one output reads."""
        return (self.taps - 1) * self.dilation


def _phases(window: Window, d: int, size: Dim) -> _Phases:
    stride, pad = window.strides[d], window.begin[d]
    if stride == 1:
        return _Phases(1, window.dilations[d], pad, window.kernel[d], size)
    steps = as_dim((size - 1 + pad) // stride + 1 - pad // stride)
    # The dilation of a strided kernel goes into its weights, as zeros.
    return _Phases(stride, 1, pad, -(-window.extents[d] // stride), steps)


def _lower_transpose(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, w, b = _operands(inputs)
    (out,) = _infer_transpose(call)
    window = window_of(call, w.shape[FIRST_SPATIAL:])
    phases = tuple(_phases(window, d, size) for d, size in enumerate(out.shape[FIRST_SPATIAL:]))
    before = tuple(p.reach - p.first for p in phases)
    source = pad_spatial(call, x, before, tuple(as_dim(p.steps + p.reach) for p in phases), 0)
    weights = _strided_weights(call, w, window, phases)
    total = _phased_sum(call, source, weights, phases, out)
    if any(p.stride > 1 for p in phases):
        total = _interleave(call, total, phases, out)
    return (finish(call, total, b, out),)


def _strided_weights(call: Call, w: Tensor, window: Window, phases: Sequence[_Phases]) -> Tensor:
    """``NODE.weights``: the kernel dilated and zero-padded to a multiple of the stride; ``w`` itself where it fits."""
    extents = tuple(k if p.stride == 1 else p.stride * p.taps for k, p in zip(window.kernel, phases, strict=True))
    if extents == window.kernel:
        return w
    dilations = tuple(1 if p.stride == 1 else d for d, p in zip(window.dilations, phases, strict=True))

    def body(c: Expr, k: Expr, *taps: Expr) -> Expr:
        tests = [eq(t % d, 0) for t, d in zip(taps, dilations, strict=True) if d > 1]
        original = tuple(t // d for t, d in zip(taps, dilations, strict=True))
        fits = zip(original, window.kernel, extents, dilations, strict=True)
        tests += [compare("lt", t, size) for t, size, extent, d in fits if extent > size * d]
        return guarded(w[(c, k, *original)], tests)

    names = ("c", "k", *spatial_names(window.rank, "k"))
    return define(f"{call.node}.weights", (*w.shape[:FIRST_SPATIAL], *extents), names, body, call.node)


def _phased_sum(call: Call, source: Tensor, w: Tensor, phases: Sequence[_Phases], out: TensorType) -> Tensor:
    """The contraction, over axes (n, k, a phase per strided dimension, a step per dimension)."""
    group = _group(call)
    depth, per_group = as_dim(source.shape[1] // group), _known(w.shape[1])
    names = spatial_names(len(phases))
    channel, taps = _reduction(depth, [p.taps for p in phases], group)
    strided = [d for d, p in enumerate(phases) if p.stride > 1]

    def body(n: Expr, k: Expr, *index: Expr) -> Expr:
        phase = dict(zip(strided, index, strict=False))
        steps = index[len(strided) :]
        reads = tuple(q + p.reach - t * p.dilation for q, t, p in zip(steps, taps, phases, strict=True))
        kernel = tuple(phase.get(d, const(0)) + t * phases[d].stride for d, t in enumerate(taps))
        c = _first_channel(k, group, per_group, depth) + (channel[0] if channel else const(0))
        weight = w[(c, k % per_group if group > 1 else k, *kernel)]
        return te.sum(widen(source[(n, c, *reads)]) * widen(weight), (*channel, *taps))

    shape = (*out.shape[:FIRST_SPATIAL], *(phases[d].stride for d in strided), *(p.steps for p in phases))
    axes = ("n", "k", *(f"r{names[d]}" for d in strided), *names)
    return define(f"{call.node}.sum", shape, axes, body, call.node)


def _interleave(call: Call, total: Tensor, phases: Sequence[_Phases], out: TensorType) -> Tensor:
    def body(n: Expr, k: Expr, *spatial: Expr) -> Expr:
        shifted = [(o + p.pad, p) for o, p in zip(spatial, phases, strict=True)]
        phase = tuple(o % p.stride for o, p in shifted if p.stride > 1)
        steps = tuple(o // p.stride - p.first for o, p in shifted)
        return total[(n, k, *phase, *steps)]

    names = ("n", "k", *spatial_names(len(phases)))
    return define(f"{call.node}.interleaved", out.shape, names, body, call.node)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Conv": Operator("Conv", OpKind.CONTRACTION, _infer_conv, _lower_conv),
        "ConvTranspose": Operator("ConvTranspose", OpKind.CONTRACTION, _infer_transpose, _lower_transpose),
    }
)
