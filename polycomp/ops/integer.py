"""Products and convolutions of 8-bit integers with 32-bit sums, plain and with the constant operand in words.

An *interleaved* matrix ``[K, N]`` is ``[ceil(N / nr), ceil(K / word), nr, word]``, zero padded: the bytes that are
multiplied together (four by a dot product instruction of a CPU) are neighbours, and the words of ``nr`` columns follow
one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp import te
from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Expr, cast, compare, const
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import broadcast_load
from polycomp.ops.convolution import convolution_shape, convolve, finish
from polycomp.ops.matmul import batch_index, matmul_shape
from polycomp.ops.pooling import layout_names
from polycomp.ops.windows import (
    FIRST_SPATIAL,
    as_dim,
    axis_names,
    check_spatial,
    define,
    guarded,
    optional,
    output_sizes,
    pad_for_windows,
    reduction_axes,
    required,
    spatial_names,
    window_of,
)
from polycomp.te import Dim, Tensor

WORD = 4
"""Bytes in a word of 32 bits. Operators with an attribute ``word`` have another number of them in a word."""

_BYTES = (DType.INT8, DType.UINT8)


def _check_bytes(call: Call) -> None:
    a, b = call.input(0), call.input(1)
    if a.dtype not in _BYTES or b.dtype not in _BYTES:
        raise DTypeError(f"{call.op} {call.node!r}: operands must be int8 or uint8, not {a} and {b}")


def _word(call: Call) -> int:
    return int(call.attr("word", WORD))


def _wide(value: Expr) -> Expr:
    return cast(DType.INT32, value)


def _less_zero(value: Expr, zero: Tensor | None, shape: Sequence[Dim], index: Sequence[Expr]) -> Expr:
    """``value``, the element at ``index`` of an operand of ``shape``, less its zero point, as int32."""
    return _wide(value) if zero is None else _wide(value) - _wide(broadcast_load(zero, shape, index))


def _infer_matmul(call: Call) -> tuple[TensorType, ...]:
    """numpy.matmul's rule: int8 or uint8 a [..., M, K] and b [..., K, N] -> int32 [..., M, N].

    Zero points, inputs 2 and 3, broadcast against a and b.
    """
    _check_bytes(call)
    return (TensorType(DType.INT32, matmul_shape(call)),)


def _lower_matmul(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    a, b, a_zero, b_zero = _operands(inputs)
    shape = matmul_shape(call)
    inner = ("m",) * (a.rank > 1) + ("n",) * (b.rank > 1)
    batch = len(shape) - len(inner)
    (k,) = reduction_axes((a.shape[-1],), ("k",))

    def body(*index: Expr) -> Expr:
        row, column = index[batch : batch + (a.rank > 1)], index[len(index) - (b.rank > 1) :]
        left = (*batch_index(a, index[:batch]), *row, k)
        right = (*batch_index(b, index[:batch]), k, *column)
        return te.sum(_less_zero(a[left], a_zero, a.shape, left) * _less_zero(b[right], b_zero, b.shape, right), k)

    names = (*(f"b{i}" for i in range(batch)), *inner)
    return (define(f"{call.node}.sum", shape, names, body, call.node),)


def _operands(inputs: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    return required(inputs, 0), required(inputs, 1), optional(inputs, 2), optional(inputs, 3)


def _infer_conv(call: Call) -> tuple[TensorType, ...]:
    """int8 or uint8 x [N, C, spatial...] and w [K, C / group, kernel...] -> int32 [N, K, spatial...].

    Input 2 is the zero point of x, of one element, and input 3 that of w, which broadcasts against it. Around x is its
    zero point, or the attribute ``fill`` when it has none.
    """
    _check_bytes(call)
    return (TensorType(DType.INT32, convolution_shape(call)),)


def _lower_conv(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, w, x_zero, w_zero = _operands(inputs)
    (out,) = _infer_conv(call)
    if x_zero is not None:
        origin = (const(0),) * x.rank
        data = define(
            f"{call.node}.centred",
            x.shape,
            tuple(f"i{d}" for d in range(x.rank)),
            lambda *i: _less_zero(x[i], x_zero, x.shape, origin),
        )
    else:
        data = x

    def product(element: Expr, weight: Expr, at: Sequence[Expr]) -> Expr:
        return _wide(element) * _less_zero(weight, w_zero, w.shape, at)

    fill = 0 if x_zero is not None else int(call.attr("fill", 0))
    return (convolve(call, data, w, out.shape, product, fill),)


def _groups(size: Dim, group: int) -> Dim:
    return as_dim((size + (group - 1)) // group)


def _infer_pack(call: Call) -> tuple[TensorType, ...]:
    """[K, N] -> [ceil(N / nr), ceil(K / word), nr, word]."""
    b, nr, word = call.input(0), int(call.attr("nr")), _word(call)
    if b.rank != 2:
        raise ShapeError(f"PackInterleaved {call.node!r} takes a matrix, not {b}")
    depth, columns = b.shape
    return (TensorType(b.dtype, (_groups(columns, nr), _groups(depth, word), nr, word)),)


def _lower_pack(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    b, nr, word = required(inputs, 0), int(call.attr("nr")), _word(call)
    (out,) = _infer_pack(call)

    def body(no: Expr, ko: Expr, ni: Expr, ki: Expr) -> Expr:
        k, n = ko * word + ki, no * nr + ni
        tests = [compare("lt", i, d) for i, d, f in ((k, b.shape[0], word), (n, b.shape[1], nr)) if not _divides(f, d)]
        return guarded(b[k, n], tests)

    return (define(f"{call.node}.packed", out.shape, ("no", "ko", "ni", "ki"), body, call.node),)


def _divides(factor: int, size: Dim) -> bool:
    return isinstance(size, int) and size % factor == 0


def _infer_interleaved(call: Call) -> tuple[TensorType, ...]:
    """a [..., M, K], b interleaved, int32 bias [N] -> int32 [..., M, N]."""
    _check_bytes(call)
    a, b = call.input(0), call.input(1)
    n, nr, word = call.attr("n"), int(call.attr("nr")), _word(call)
    if not a.rank or b.shape != (_groups(n, nr), _groups(a.shape[-1], word), nr, word):
        raise ShapeError(
            f"MatMulInterleaved {call.node!r}: an interleaved operand of shape {list(b.shape)} does not fit "
            f"{list(a.shape)} times {n} columns in blocks of {nr}"
        )
    return (TensorType(DType.INT32, (*a.shape[:-1], n)),)


def _lower_interleaved(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    a, b, bias = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    (out,) = _infer_interleaved(call)
    nr, word = int(call.attr("nr")), _word(call)
    source = _padded(call, a, b.shape[1], word)
    ko, ki = reduction_axes((b.shape[1], word), ("k", "ki"))

    def body(*index: Expr) -> Expr:
        *rows, n = index
        return te.sum(_wide(source[(*rows, ko * word + ki)]) * _wide(b[n // nr, ko, n % nr, ki]), (ko, ki))

    total = define(f"{call.node}.sum", out.shape, _row_names(a.rank, "n"), body, call.node)
    return (total if bias is None else _add_columns(call, total, bias),)


def _infer_pack_conv(call: Call) -> tuple[TensorType, ...]:
    """[K, C, kernel...] -> [ceil(K / block), ceil(C / input_block), kernel..., input_block / word, block, word]."""
    w, block, input_block = call.input(0), int(call.attr("block")), int(call.attr("input_block"))
    word = _word(call)
    check_spatial(call, w.rank - FIRST_SPATIAL, w.shape)
    blocks = (_groups(w.shape[0], block), _groups(w.shape[1], input_block))
    return (TensorType(w.dtype, (*blocks, *w.shape[FIRST_SPATIAL:], input_block // word, block, word)),)


def _lower_pack_conv(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    w, block, input_block = required(inputs, 0), int(call.attr("block")), int(call.attr("input_block"))
    (out,), word = _infer_pack_conv(call), _word(call)

    def body(ko: Expr, co: Expr, *rest: Expr) -> Expr:
        *taps, cq, ki, ci = rest
        k, c = ko * block + ki, co * input_block + cq * word + ci
        sizes = ((k, w.shape[0], block), (c, w.shape[1], input_block))
        return guarded(w[(k, c, *taps)], [compare("lt", i, d) for i, d, f in sizes if not _divides(f, d)])

    names = ("ko", "co", *spatial_names(w.rank - FIRST_SPATIAL, "k"), "cq", "ki", "ci")
    return (define(f"{call.node}.packed", out.shape, names, body, call.node),)


def _infer_conv_blocked(call: Call) -> tuple[TensorType, ...]:
    """x [N, ceil(C / input_block), spatial..., input_block], w packed, int32 bias [ceil(K / block), block] ->
    int32 [N, ceil(K / block), spatial..., block].

    Around x is the attribute ``fill``. Channels beyond C may hold anything: the weights are zero there.
    """
    _check_bytes(call)
    x, w, input_block = call.input(0), call.input(1), int(call.attr("input_block"))
    word = _word(call)
    window = window_of(call, tuple(call.attr("kernel_shape")))
    check_spatial(call, window.rank, x.shape, 1)
    if (
        w.shape[1:] != (x.shape[1], *window.kernel, input_block // word, w.shape[-2], word)
        or x.shape[-1] != input_block
    ):
        raise ShapeError(
            f"ConvIntegerBlocked {call.node!r}: packed weights of shape {list(w.shape)} do not fit data of shape "
            f"{list(x.shape)} in blocks of {input_block}"
        )
    sizes = output_sizes(call, x.shape[FIRST_SPATIAL : FIRST_SPATIAL + window.rank], window)
    return (TensorType(DType.INT32, (x.shape[0], w.shape[0], *sizes, w.shape[-2])),)


def _lower_conv_blocked(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, w, word = required(inputs, 0), required(inputs, 1), _word(call)
    (out,) = _infer_conv_blocked(call)
    window = window_of(call, tuple(call.attr("kernel_shape")))
    source = pad_for_windows(call, x, window, int(call.attr("fill", 0)))
    taps = reduction_axes(window.kernel, spatial_names(window.rank, "k"))
    co, cq, ci = reduction_axes((w.shape[1], w.shape[-3], word), ("co", "cq", "ci"))

    def body(n: Expr, ko: Expr, *index: Expr) -> Expr:
        *position, ki = index
        data = source[(n, co, *window.at(position, taps), cq * word + ci)]
        return te.sum(_wide(data) * _wide(w[(ko, co, *taps, cq, ki, ci)]), (co, *taps, cq, ci))

    total = define(f"{call.node}.sum", out.shape, layout_names(window.rank, 1), body, call.node)
    return (finish(call, total, optional(inputs, 2), out),)


def _row_names(rank: int, last: str) -> tuple[str, ...]:
    return (*(f"b{i}" for i in range(rank - 2)), *("m",) * (rank > 1), last)


def _padded(call: Call, a: Tensor, words: Dim, word: int) -> Tensor:
    """``NODE.padded``: ``a`` with zeros up to a multiple of a word's bytes; ``a`` itself where it has one."""
    depth = a.shape[-1]
    if _divides(word, depth):
        return a

    def body(*index: Expr) -> Expr:
        return guarded(a[index], [compare("lt", index[-1], depth)])

    shape = (*a.shape[:-1], as_dim(words * word))
    return define(f"{call.node}.padded", shape, _row_names(a.rank, "k"), body, call.node)


def _add_columns(call: Call, total: Tensor, bias: Tensor) -> Tensor:
    return define(f"{call.node}.bias", total.shape, axis_names(total), lambda *i: total[i] + bias[i[-1]], call.node)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "MatMulInteger": Operator("MatMulInteger", OpKind.CONTRACTION, _infer_matmul, _lower_matmul),
        "ConvInteger": Operator("ConvInteger", OpKind.CONTRACTION, _infer_conv, _lower_conv),
        "PackInterleaved": Operator("PackInterleaved", OpKind.INJECTIVE, _infer_pack, _lower_pack),
        "PackConvInterleaved": Operator("PackConvInterleaved", OpKind.INJECTIVE, _infer_pack_conv, _lower_pack_conv),
        "ConvIntegerBlocked": Operator(
            "ConvIntegerBlocked", OpKind.CONTRACTION, _infer_conv_blocked, _lower_conv_blocked
        ),
        "MatMulInterleaved": Operator("MatMulInterleaved", OpKind.CONTRACTION, _infer_interleaved, _lower_interleaved),
    }
)
