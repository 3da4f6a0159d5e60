"""Operators on layouts made for vector registers: channel-blocked data, and packed matrix operands.

Channel-blocked data is ``[N, ceil(C / c), spatial..., c]`` for ``[N, C, spatial...]``, with c the ``block``, usually
the lanes of one vector register (NCHWc: Liu et al., "Optimizing CNN Model Inference on CPUs", USENIX ATC 2019). The
lanes beyond C hold zeros after ToBlocked and unspecified finite values after other operators; nothing reads them but
elementwise operators and pools, lane by lane. A packed matrix ``[K, N]`` is ``[ceil(N / nr), K, nr]``, zero padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp import te
from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.expr import Expr, cast, compare, const
from polycomp.graph.ir import Call, Infer, Lower, Operator, OpKind, TensorType
from polycomp.ops.convolution import finish
from polycomp.ops.pooling import layout_names, pooling_operators
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
    reduction_axes,
    required,
    spatial_names,
    widen,
    window_of,
)
from polycomp.te import Axis, Dim, Tensor

_BYTES = (DType.INT8, DType.UINT8)


def _blocks(channels: Dim, block: int) -> Dim:
    return as_dim((channels + block - 1) // block)


def _block(call: Call) -> int:
    block = call.attr("block")
    if not isinstance(block, int) or block < 1:
        raise ShapeError(f"{call.op} {call.node!r}: the block must be a positive integer, not {block!r}")
    return block


def _lane_tests(index: Expr, size: Dim, block: int) -> list[Expr]:
    """The test that ``index`` is below ``size``, unless whole blocks make it needless."""
    return [] if isinstance(size, int) and size % block == 0 else [compare("lt", index, size)]


def _infer_to_blocked(call: Call) -> tuple[TensorType, ...]:
    """[N, C, spatial...] -> [N, ceil(C / block), spatial..., block]."""
    x = call.input(0)
    check_spatial(call, x.rank - FIRST_SPATIAL, x.shape)
    batch, channels, *spatial = x.shape
    return (TensorType(x.dtype, (batch, _blocks(channels, _block(call)), *spatial, _block(call))),)


def _lower_to_blocked(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, block = required(inputs, 0), _block(call)
    (out,) = _infer_to_blocked(call)

    def body(n: Expr, ko: Expr, *rest: Expr) -> Expr:
        channel = ko * block + rest[-1]
        return guarded(x[(n, channel, *rest[:-1])], _lane_tests(channel, x.shape[1], block))

    names = layout_names(x.rank - FIRST_SPATIAL, 1)
    return (define(f"{call.node}.blocked", out.shape, names, body, call.node),)


def _infer_from_blocked(call: Call) -> tuple[TensorType, ...]:
    """[N, ceil(channels / block), spatial..., block] -> [N, channels, spatial...]."""
    x, channels = call.input(0), call.attr("channels")
    check_spatial(call, x.rank - FIRST_SPATIAL - 1, x.shape, 1)
    if x.shape[-1] != _block(call) or x.shape[1] != _blocks(channels, _block(call)):
        raise ShapeError(
            f"FromBlocked {call.node!r}: data of shape {list(x.shape)} does not hold {channels} channels in "
            f"blocks of {_block(call)}"
        )
    return (TensorType(x.dtype, (x.shape[0], channels, *x.shape[FIRST_SPATIAL:-1])),)


def _lower_from_blocked(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, block = required(inputs, 0), _block(call)
    (out,) = _infer_from_blocked(call)

    def body(n: Expr, k: Expr, *spatial: Expr) -> Expr:
        return x[(n, k // block, *spatial, k % block)]

    names = layout_names(x.rank - FIRST_SPATIAL - 1, 0)
    return (define(f"{call.node}.plain", out.shape, names, body, call.node),)


def _infer_pack_weights(call: Call) -> tuple[TensorType, ...]:
    """[K, C, kernel...] -> [ceil(K / block), C, kernel..., block]; without C when depthwise.

    With ``input_block`` b, which divides C: [ceil(K / block), C / b, kernel..., b, block], the order in which a
    convolution on blocked data reads them.
    """
    w, block = call.input(0), _block(call)
    check_spatial(call, w.rank - FIRST_SPATIAL, w.shape)
    if call.attr("depthwise") and w.shape[1] != 1:
        raise ShapeError(f"PackConvWeights {call.node!r}: weights of shape {list(w.shape)} are not depthwise")
    inner = w.shape[2:] if call.attr("depthwise") else w.shape[1:]
    input_block = int(call.attr("input_block", 0))
    if input_block:
        inner = (_blocks(w.shape[1], input_block), *w.shape[2:], input_block)
    return (TensorType(w.dtype, (_blocks(w.shape[0], block), *inner, block)),)


def _lower_pack_weights(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    w, block = required(inputs, 0), _block(call)
    (out,) = _infer_pack_weights(call)
    depthwise, input_block = bool(call.attr("depthwise")), int(call.attr("input_block", 0))

    def body(ko: Expr, *rest: Expr) -> Expr:
        k = ko * block + rest[-1]
        inner = (*(const(0),) * depthwise, *rest[:-1])
        if input_block:
            co, *taps, ci = rest[:-1]
            inner = (co * input_block + ci, *taps)
        return guarded(w[(k, *inner)], _lane_tests(k, w.shape[0], block))

    taps = spatial_names(w.rank - FIRST_SPATIAL, "k")
    names = ("ko", *("c",) * (not depthwise), *taps, *("ci",) * bool(input_block), "ki")
    return (define(f"{call.node}.packed", out.shape, names, body, call.node),)


def _infer_pack_channels(call: Call) -> tuple[TensorType, ...]:
    """[K] -> [ceil(K / block), block]."""
    v = call.input(0)
    if v.rank != 1:
        raise ShapeError(f"PackChannels {call.node!r} takes one value per channel, not {v}")
    return (TensorType(v.dtype, (_blocks(v.shape[0], _block(call)), _block(call))),)


def _lower_pack_channels(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    v, block = required(inputs, 0), _block(call)
    (out,) = _infer_pack_channels(call)

    def body(ko: Expr, ki: Expr) -> Expr:
        return guarded(v[ko * block + ki], _lane_tests(ko * block + ki, v.shape[0], block))

    return (define(f"{call.node}.packed", out.shape, ("ko", "ki"), body, call.node),)


def _is_depthwise(call: Call) -> bool:
    group = int(call.attr("group", 1))
    return group > 1 and group == call.attr("in_channels") == call.attr("out_channels")


def _infer_conv(call: Call) -> tuple[TensorType, ...]:
    """x blocked by input_block, or plain when that is 0; w and b packed -> [N, ceil(K / block), spatial..., block].

    Bytes give int32. Around x is the attribute ``fill``, 0 unless given.
    """
    x, block, input_block = call.input(0), _block(call), int(call.attr("input_block"))
    window = window_of(call, tuple(call.attr("kernel_shape")))
    check_spatial(call, window.rank, x.shape, 1 if input_block else 0)
    _check_channels(call, x, block, input_block)
    _check_weights(call, window, block)
    sizes = output_sizes(call, x.shape[FIRST_SPATIAL : FIRST_SPATIAL + window.rank], window)
    shape = (x.shape[0], _blocks(call.attr("out_channels"), block), *sizes, block)
    return (TensorType(DType.INT32 if x.dtype in _BYTES else x.dtype, shape),)


def _accumulated(value: Expr) -> Expr:
    """``value`` in the type of sums: int32 for bytes."""
    return cast(DType.INT32, value) if value.dtype in _BYTES else widen(value)


def _check_channels(call: Call, x: TensorType, block: int, input_block: int) -> None:
    channels = call.attr("in_channels")
    expected = (_blocks(channels, input_block), input_block) if input_block else (channels,)
    found = (x.shape[1], x.shape[-1]) if input_block else (x.shape[1],)
    if found != expected:
        raise ShapeError(
            f"ConvBlocked {call.node!r}: an input of shape {list(x.shape)} does not hold {channels} channels in "
            f"blocks of {input_block}"
        )
    if _is_depthwise(call) and input_block != block:
        raise ShapeError(f"ConvBlocked {call.node!r}: depthwise data must be in blocks of {block}, not {input_block}")
    if not _is_depthwise(call) and int(call.attr("group", 1)) != 1:
        raise ShapeError(f"ConvBlocked {call.node!r}: {call.attr('group')} groups; only 1 or depthwise can be blocked")


def _check_weights(call: Call, window: Window, block: int) -> None:
    channels, input_block = call.attr("in_channels"), int(call.attr("input_block"))
    if _is_depthwise(call):
        inner: tuple[int, ...] = window.kernel
    elif fills_blocks(channels, input_block):
        inner = (channels // input_block, *window.kernel, input_block)
    else:
        inner = (channels, *window.kernel)
    expected = (_blocks(call.attr("out_channels"), block), *inner, block)
    if call.input(1).shape != expected:
        raise ShapeError(
            f"ConvBlocked {call.node!r}: packed weights have shape {list(call.input(1).shape)}, not {list(expected)}"
        )


def _lower_conv(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, w = required(inputs, 0), required(inputs, 1)
    (out,) = _infer_conv(call)
    window = window_of(call, tuple(call.attr("kernel_shape")))
    source = pad_for_windows(call, x, window, int(call.attr("fill", 0)))
    taps = reduction_axes(window.kernel, spatial_names(window.rank, "k"))
    reduced = _reduction(call, taps)

    def body(n: Expr, ko: Expr, *index: Expr) -> Expr:
        ki, position = index[-1], window.at(index[:-1], taps)
        if _is_depthwise(call):
            return te.sum(_accumulated(source[(n, ko, *position, ki)]) * _accumulated(w[(ko, *taps, ki)]), reduced)
        data = _load_channel(call, source, n, position, reduced)
        return te.sum(_accumulated(data) * _accumulated(w[(ko, *reduced, ki)]), reduced)

    total = define(f"{call.node}.sum", out.shape, layout_names(window.rank, 1), body, call.node)
    return (finish(call, total, optional(inputs, 2), out),)


def fills_blocks(channels: int, input_block: int) -> bool:
    """Whether ``channels`` are whole blocks of blocked data (``input_block`` 0: plain data), so that packed weights
    and the reduction are blocked too."""
    return input_block > 0 and channels % input_block == 0


def _reduction(call: Call, taps: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Taps alone when depthwise; (co, taps, ci) when input channels fill whole blocks; else (ci, taps)."""
    channels, input_block = int(call.attr("in_channels")), int(call.attr("input_block"))
    if _is_depthwise(call):
        return taps
    if fills_blocks(channels, input_block):
        co, ci = reduction_axes((channels // input_block, input_block), ("co", "ci"))
        return (co, *taps, ci)
    return (*reduction_axes((channels,), ("ci",)), *taps)


def _load_channel(call: Call, x: Tensor, n: Expr, position: Sequence[Expr], reduced: Sequence[Axis]) -> Expr:
    """The input element of the reduction axes' channel."""
    input_block = int(call.attr("input_block"))
    if not input_block:
        return x[(n, reduced[0], *position)]
    if fills_blocks(call.attr("in_channels"), input_block):
        return x[(n, reduced[0], *position, reduced[-1])]
    return x[(n, reduced[0] // input_block, *position, reduced[0] % input_block)]


def _infer_pack_matmul(call: Call) -> tuple[TensorType, ...]:
    """[K, N], or [N, K] when transposed -> [ceil(N / nr), K, nr]."""
    b, nr = call.input(0), int(call.attr("nr"))
    if b.rank != 2:
        raise ShapeError(f"PackMatMul {call.node!r} takes a matrix, not {b}")
    depth, columns = reversed(b.shape) if call.attr("transposed") else b.shape
    return (TensorType(b.dtype, (_blocks(columns, nr), depth, nr)),)


def _lower_pack_matmul(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    b, nr, transposed = required(inputs, 0), int(call.attr("nr")), bool(call.attr("transposed"))
    (out,) = _infer_pack_matmul(call)
    columns = b.shape[0 if transposed else 1]

    def body(no: Expr, k: Expr, ni: Expr) -> Expr:
        n = no * nr + ni
        return guarded(b[(n, k) if transposed else (k, n)], _lane_tests(n, columns, nr))

    return (define(f"{call.node}.packed", out.shape, ("no", "k", "ni"), body, call.node),)


def _infer_matmul(call: Call) -> tuple[TensorType, ...]:
    """a [..., M, K], b [ceil(N / nr), K, nr], bias [N] -> [..., M, N]."""
    a, b = call.input(0), call.input(1)
    n, nr = call.attr("n"), int(call.attr("nr"))
    if not a.rank or b.shape != (_blocks(n, nr), a.shape[-1], nr):
        raise ShapeError(
            f"MatMulPacked {call.node!r}: a packed operand of shape {list(b.shape)} does not fit {list(a.shape)} "
            f"times {n} columns in blocks of {nr}"
        )
    return (TensorType(a.dtype, (*a.shape[:-1], n)),)


def _lower_matmul(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    a, b, bias = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    (out,) = _infer_matmul(call)
    nr = int(call.attr("nr"))
    (k,) = reduction_axes((a.shape[-1],), ("k",))

    def body(*index: Expr) -> Expr:
        *rows, n = index
        return te.sum(widen(a[(*rows, k)]) * widen(b[n // nr, k, n % nr]), k)

    names = (*(f"b{i}" for i in range(a.rank - 2)), *("m",) * (a.rank > 1), "n")
    total = define(f"{call.node}.sum", out.shape, names, body, call.node)
    result = total if bias is None else _add_columns(call, total, bias)
    return (narrow(result, out.dtype, f"{call.node}.cast", call.node),)


def _add_columns(call: Call, total: Tensor, bias: Tensor) -> Tensor:
    names = axis_names(total)
    return define(f"{call.node}.bias", total.shape, names, lambda *i: total[i] + widen(bias[i[-1]]), call.node)


_RULES: Mapping[str, tuple[OpKind, Infer, Lower]] = MappingProxyType(
    {
        "ToBlocked": (OpKind.INJECTIVE, _infer_to_blocked, _lower_to_blocked),
        "FromBlocked": (OpKind.INJECTIVE, _infer_from_blocked, _lower_from_blocked),
        "PackConvWeights": (OpKind.INJECTIVE, _infer_pack_weights, _lower_pack_weights),
        "PackChannels": (OpKind.INJECTIVE, _infer_pack_channels, _lower_pack_channels),
        "PackMatMul": (OpKind.INJECTIVE, _infer_pack_matmul, _lower_pack_matmul),
        "ConvBlocked": (OpKind.CONTRACTION, _infer_conv, _lower_conv),
        "MatMulPacked": (OpKind.CONTRACTION, _infer_matmul, _lower_matmul),
    }
)

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {n: Operator(n, *rule) for n, rule in _RULES.items()} | pooling_operators("Blocked", 1)
)
