"""MatMul and Gemm."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp import te
from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Expr, const
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.windows import define, narrow, optional, reduction_axes, required, widen
from polycomp.te import Dim, Tensor


def _check_types(call: Call) -> DType:
    types = [t for t in call.inputs if t is not None]
    if len({t.dtype for t in types}) != 1 or types[0].dtype is DType.BOOL:
        named = ", ".join(map(str, types))
        raise DTypeError(f"{call.op} {call.node!r}: operands must be of one number type, not {named}")
    return types[0].dtype


def _mismatch(call: Call, a: Sequence[Dim], b: Sequence[Dim]) -> ShapeError:
    return ShapeError(f"{call.op} {call.node!r}: shapes {list(a)} and {list(b)} cannot be multiplied")


def _same(a: Dim, b: Dim) -> bool:
    """Whether two sizes may be equal: sizes known at run time only are taken to be."""
    return a == b or isinstance(a, Expr) or isinstance(b, Expr)


def _broadcast(call: Call, a: Sequence[Dim], b: Sequence[Dim]) -> tuple[Dim, ...]:
    """The batch dimensions of a product, by numpy's broadcasting."""
    pairs = itertools.zip_longest(reversed(a[:-2]), reversed(b[:-2]), fillvalue=1)
    result: list[Dim] = []
    for x, y in pairs:
        if x != 1 and y != 1 and not _same(x, y):
            raise _mismatch(call, a, b)
        result.append(y if x == 1 or (y != 1 and isinstance(x, Expr)) else x)
    return tuple(reversed(result))


def _infer_matmul(call: Call) -> tuple[TensorType, ...]:
    """numpy.matmul's rule: a [..., M, K] or [K], b [..., K, N] or [K]."""
    return (TensorType(_check_types(call), matmul_shape(call)),)


def matmul_shape(call: Call) -> tuple[Dim, ...]:
    """The shape of numpy.matmul's result; raises ShapeError when the operands do not fit each other."""
    a, b = call.input(0).shape, call.input(1).shape
    if not a or not b or not _same(a[-1], b[-2] if len(b) > 1 else b[0]):
        raise _mismatch(call, a, b)
    rows = a[-2:-1]
    columns = b[-1:] if len(b) > 1 else ()
    return (*_broadcast(call, a, b), *rows, *columns)


def _lower_matmul(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    a, b = required(inputs, 0), required(inputs, 1)
    (out,) = _infer_matmul(call)
    inner = ("m",) * (a.rank > 1) + ("n",) * (b.rank > 1)
    batch = len(out.shape) - len(inner)
    (k,) = reduction_axes((a.shape[-1],), ("k",))

    def body(*index: Expr) -> Expr:
        row, column = index[batch : batch + (a.rank > 1)], index[len(index) - (b.rank > 1) :]
        left = a[(*batch_index(a, index[:batch]), *row, k)]
        right = b[(*batch_index(b, index[:batch]), k, *column)]
        return te.sum(widen(left) * widen(right), k)

    names = (*(f"b{i}" for i in range(batch)), *inner)
    total = define(f"{call.node}.sum", out.shape, names, body, call.node)
    return (narrow(total, out.dtype, f"{call.node}.cast", call.node),)


def batch_index(operand: Tensor, batch: Sequence[Expr]) -> tuple[Expr, ...]:
    """``operand``'s index for the result's ``batch``: the last ones, 0 where it is broadcast."""
    own = operand.shape[:-2]
    positions = batch[len(batch) - len(own) :]
    return tuple(const(0) if size == 1 else i for size, i in zip(own, positions, strict=True))


def _infer_gemm(call: Call) -> tuple[TensorType, ...]:
    """A [M, K] (or [K, M] with transA), B [K, N] (or [N, K] with transB), C broadcast to [M, N]."""
    dtype = _check_types(call)
    a, b = call.input(0).shape, call.input(1).shape
    if len(a) != 2 or len(b) != 2:
        raise _mismatch(call, a, b)
    rows, depth = reversed(a) if call.attr("transA") else a
    other, columns = reversed(b) if call.attr("transB") else b
    if not _same(depth, other):
        raise _mismatch(call, a, b)
    if call.has(2):
        _check_addend(call, (rows, columns))
    return (TensorType(dtype, (rows, columns)),)


def _check_addend(call: Call, out: tuple[Dim, Dim]) -> None:
    shape = call.input(2).shape
    fits = len(shape) <= 2 and all(s == 1 or _same(s, o) for s, o in zip(reversed(shape), reversed(out), strict=False))
    if not fits:
        raise ShapeError(f"Gemm {call.node!r}: C of shape {list(shape)} cannot be broadcast to {list(out)}")


def _lower_gemm(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    a, b, c = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    (out,) = _infer_gemm(call)
    trans_a, trans_b = bool(call.attr("transA")), bool(call.attr("transB"))
    (k,) = reduction_axes((a.shape[0 if trans_a else 1],), ("k",))

    def body(m: Expr, n: Expr) -> Expr:
        left, right = a[(k, m) if trans_a else (m, k)], b[(n, k) if trans_b else (k, n)]
        return te.sum(widen(left) * widen(right), k)

    total = define(f"{call.node}.sum", out.shape, ("m", "n"), body, call.node)
    result = _scale_and_add(call, total, c)
    return (narrow(result, out.dtype, f"{call.node}.cast", call.node),)


def _scale_and_add(call: Call, total: Tensor, c: Tensor | None) -> Tensor:
    """``alpha * total + beta * c``; ``total`` itself when there is nothing to do."""
    alpha, beta = float(call.attr("alpha", 1.0)), float(call.attr("beta", 1.0))
    addend = None if beta == 0 else c
    if alpha == 1 and addend is None:
        return total

    def body(m: Expr, n: Expr) -> Expr:
        scaled = _times(total[m, n], alpha)
        return scaled if addend is None else scaled + _times(widen(_broadcast_load(addend, (m, n))), beta)

    return define(f"{call.node}.bias", total.shape, ("m", "n"), body, call.node)


def _times(value: Expr, factor: float) -> Expr:
    return value if factor == 1 else value * const(factor, value.dtype)


def _broadcast_load(operand: Tensor, index: tuple[Expr, ...]) -> Expr:
    positions = index[len(index) - operand.rank :]
    return operand[tuple(const(0) if s == 1 else i for s, i in zip(operand.shape, positions, strict=True))]


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "MatMul": Operator("MatMul", OpKind.CONTRACTION, _infer_matmul, _lower_matmul),
        "Gemm": Operator("Gemm", OpKind.CONTRACTION, _infer_gemm, _lower_gemm),
    }
)
