"""LRN, local response normalisation across channels, on plain ``[N, C, ...]`` and channel-blocked data.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012. Blocked
data is ``[N, ceil(C / c), ..., c]``: what a window reads of a neighbouring block are lanes of one vector, so that its
few elements are written out as a sum instead of a reduction.
"""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import Expr, binary, cast, select, unary, wrap
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.common import FLOATS, check_dtypes, pointwise, reduce_over, same_type, shape_error
from polycomp.ops.registry import family
from polycomp.ops.windows import guarded, required, widen
from polycomp.te import Dim, Tensor


def _infer(call: Call) -> tuple[TensorType, ...]:
    if call.input(0).rank < 2 or int(call.attr("size")) < 1:
        raise shape_error(call, f"there is no window of {call.attr('size')} channels")
    check_dtypes(call, FLOATS)
    return same_type(call)


def _infer_blocked(call: Call) -> tuple[TensorType, ...]:
    x, block, channels = call.input(0), int(call.attr("block")), int(call.attr("channels"))
    if x.rank < 3 or x.shape[-1] != block or x.shape[1] != -(-channels // block) or int(call.attr("size")) > block:
        raise shape_error(
            call,
            f"data of shape {list(x.shape)} does not hold {channels} channels in blocks of {block}, which windows of "
            f"{call.attr('size')} may not exceed",
        )
    return _infer(call)


def _window(call: Call) -> range:
    """The channels of a window, as distances from its own."""
    size = int(call.attr("size"))
    before = (size - 1) // 2
    return range(-before, size - before)


def _power(scale: Expr, exponent: float) -> Expr:
    """``scale ** exponent``; the exponents in use, by square roots."""
    if exponent == 0.5:
        return unary("sqrt", scale)
    if exponent == 0.75:
        root = unary("sqrt", scale)
        return root * unary("sqrt", root)
    return binary("pow", scale, exponent)


def _normalized(call: Call, value: Expr, squares: Expr) -> Expr:
    """``value / (bias + alpha / size * squares) ** beta``."""
    alpha, beta, bias = call.attr("alpha", 1e-4), call.attr("beta", 0.75), call.attr("bias", 1.0)
    return value / _power(squares * (alpha / int(call.attr("size"))) + bias, beta)


def _lower(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, window = required(inputs, 0), _window(call)
    channels = x.shape[1]

    def square(index: tuple[Expr, ...]) -> Expr:
        n, c, *rest, tap = index
        channel = c + tap + window.start
        value = widen(x[(n, channel, *rest)])
        return select((channel >= 0) & (channel < wrap(channels)), value * value, 0)

    shape: tuple[Dim, ...] = (*x.shape, len(window))
    squares = reduce_over(call, "squares", "sum", shape, [x.rank], square)
    return (pointwise(call, "", x.shape, lambda *i: cast(x.dtype, _normalized(call, widen(x[i]), squares[i]))),)


def _lower_blocked(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)

    def normalized(*index: Expr) -> Expr:
        terms = [_square(call, x, index, distance) for distance in _window(call)]
        squares = terms[0]
        for term in terms[1:]:
            squares = squares + term
        return cast(x.dtype, _normalized(call, widen(x[index]), squares))

    return (pointwise(call, "", x.shape, normalized),)


def _square(call: Call, x: Tensor, index: tuple[Expr, ...], distance: int) -> Expr:
    """The square of the channel at ``distance`` from that of ``index``; zero where there is none."""
    block, channels = int(call.attr("block")), int(call.attr("channels"))
    value = widen(x[index]) if distance == 0 else _neighbour(x, index, distance, block)
    channel = index[1] * block + index[-1] + distance
    exists = [channel < channels] if distance > 0 and channels % block else []
    return guarded(value * value, exists)


def _neighbour(x: Tensor, index: tuple[Expr, ...], distance: int, block: int) -> Expr:
    """The element at ``distance`` channels: a lane of the same block, or of the one beside it; zero beyond the last."""
    n, ko, *spatial, ki = index
    lane, forward = ki + distance, distance > 0
    beside = (n, ko + 1, *spatial, lane - block) if forward else (n, ko - 1, *spatial, lane + block)
    exists = ko + 1 < x.shape[1] if forward else ko >= 1
    stays = lane < block if forward else lane >= 0
    return select(stays, widen(x[(n, ko, *spatial, lane)]), guarded(widen(x[beside]), [exists]))


OPERATORS = family(
    Operator("LRN", OpKind.REDUCTION, _infer, _lower),
    Operator("LRNBlocked", OpKind.REDUCTION, _infer_blocked, _lower_blocked),
)
