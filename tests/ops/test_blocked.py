"""Blocked and packed operators against the plain ones, through their packing operators."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_oracle import array_call, assert_close, make_call, ours, random

from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.expr import Binary, walk
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.ops.blocked import fills_blocks

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
channel_counts = st.sampled_from([1, 3, 4, 5, 8, 12])
blocks = st.sampled_from([2, 4])


@EXAMPLES
@given(channel_counts, blocks, st.integers(1, 3))
def test_round_trip(channels, block, rank):
    x = random(2, channels, *range(1, rank + 1))
    blocked = ours("ToBlocked", x, block=block)
    assert blocked.shape == (2, -(-channels // block), *x.shape[2:], block)
    assert not np.moveaxis(blocked, -1, 2).reshape(2, -1, *x.shape[2:])[:, channels:].any()
    assert (ours("FromBlocked", blocked, block=block, channels=channels) == x).all()


@st.composite
def conv_windows(draw):
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes = {
        "strides": tuple(draw(st.integers(1, 2)) for _ in kernel),
        "dilations": tuple(draw(st.integers(1, 2)) for _ in kernel),
        "pads": tuple(draw(st.integers(0, 1)) for _ in (*kernel, *kernel)),
    }
    return kernel, [draw(st.integers(5, 7)) for _ in kernel], attributes


def blocked_conv(x, w, b, block, input_block, attributes):
    channels, outputs = x.shape[1], w.shape[0]
    depthwise = attributes.get("group", 1) > 1
    data = ours("ToBlocked", x, block=input_block) if input_block else x
    packed_input = input_block if not depthwise and fills_blocks(channels, input_block) else 0
    weights = ours("PackConvWeights", w, block=block, depthwise=depthwise, input_block=packed_input)
    bias = None if b is None else ours("PackChannels", b, block=block)
    result = ours("ConvBlocked", data, weights, bias, block=block, input_block=input_block, in_channels=channels,
                  out_channels=outputs, kernel_shape=w.shape[2:], **attributes)  # fmt: skip
    assert result.shape[-1] == block
    return ours("FromBlocked", result, block=block, channels=outputs)


@EXAMPLES
@given(conv_windows(), channel_counts, channel_counts, blocks, st.sampled_from([0, 2, 4]), st.booleans())
def test_conv(window, channels, outputs, block, input_block, with_bias):
    kernel, sizes, attributes = window
    x, w = random(1, channels, *sizes), random(outputs, channels, *kernel, seed=1)
    b = random(outputs, seed=2) if with_bias else None
    got = blocked_conv(x, w, b, block, input_block, attributes)
    assert_close(got, ours("Conv", x, w, b, **attributes))


@EXAMPLES
@given(conv_windows(), st.sampled_from([2, 3, 4, 5, 8]), blocks, st.booleans())
def test_depthwise_conv(window, channels, block, with_bias):
    kernel, sizes, attributes = window
    attributes["group"] = channels
    x, w = random(2, channels, *sizes), random(channels, 1, *kernel, seed=1)
    b = random(channels, seed=2) if with_bias else None
    got = blocked_conv(x, w, b, block, block, attributes)
    assert_close(got, ours("Conv", x, w, b, **attributes))


def test_garbage_in_padding_lanes_is_not_read():
    x, w = random(1, 5, 4, 4), random(3, 5, 3, 3)
    data = ours("ToBlocked", x, block=4)
    data[:, -1, ..., 1:] = np.nan
    weights = ours("PackConvWeights", w, block=4)
    got = ours("ConvBlocked", data, weights, block=4, input_block=4, in_channels=5, out_channels=3, kernel_shape=(3, 3))
    assert_close(ours("FromBlocked", got, block=4, channels=3), ours("Conv", x, w))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool"])
@pytest.mark.parametrize("channels", [1, 5, 8])
def test_pools(op, channels):
    window = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1), "ceil_mode": 1}
    attributes = {} if op.startswith("Global") else window
    x = random(2, channels, 6, 7)
    blocked = ours(f"{op}Blocked", ours("ToBlocked", x, block=4), block=4, **attributes)
    assert_close(ours("FromBlocked", blocked, block=4, channels=channels), ours(op, x, **attributes))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [3, 4, 10])
def test_lrn(size, channels):
    attributes = {"size": size, "alpha": 0.5, "beta": 0.75, "bias": 1.5}
    x = random(2, channels, 3, 2)
    data = ours("ToBlocked", x, block=4)
    data[:, channels // 4 :, ..., channels % 4 :] = 99  # lanes that hold no channel
    blocked = ours("LRNBlocked", data, block=4, channels=channels, **attributes)
    assert_close(ours("FromBlocked", blocked, block=4, channels=channels), ours("LRN", x, **attributes))


def test_lrn_error():
    call = make_call("LRNBlocked", [TensorType(DType.FLOAT32, (1, 2, 5, 5, 4))], block=4, channels=8, size=5)
    with pytest.raises(ShapeError, match="windows of 5 may not exceed"):
        operators()["LRNBlocked"].infer(call)


@EXAMPLES
@given(st.sampled_from([(3,), (1, 3), (5, 7), (2, 1, 4, 5)]), st.sampled_from([1, 4, 7, 8, 9]), blocks,
       st.booleans(), st.booleans())  # fmt: skip
def test_packed_matmul(a_shape, n, nr, transposed, with_bias):
    a, b = random(*a_shape), random(a_shape[-1], n, seed=1)
    bias = random(n, seed=2) if with_bias else None
    packed = ours("PackMatMul", b.T.copy() if transposed else b, nr=nr, transposed=transposed)
    assert packed.shape == (-(-n // nr), a_shape[-1], nr)
    got = ours("MatMulPacked", a, packed, bias, n=n, nr=nr)
    assert_close(got, a @ b + (0 if bias is None else bias))


def test_whole_input_blocks_give_affine_accesses():
    call, tensors = array_call(
        "ConvBlocked", [random(1, 2, 5, 5, 4), random(1, 2, 3, 3, 4, 4)],
        block=4, input_block=4, in_channels=8, out_channels=4, kernel_shape=(3, 3),
    )  # fmt: skip
    (out,) = operators()["ConvBlocked"].lower(call, tensors)
    assert [a.name for a in out.axes] == ["n", "ko", "oh", "ow", "ki"]
    assert [a.name for a in out.reduce_axes] == ["co", "kh", "kw", "ci"]
    assert not [e for e in walk(out.body) if isinstance(e, Binary) and e.op in ("floordiv", "floormod")]


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [
        ((1, 2, 5, 5, 4), {"in_channels": 9}, "does not hold 9 channels in blocks of 4"),
        ((1, 2, 5, 5, 4), {"group": 2}, "2 groups; only 1 or depthwise can be blocked"),
        ((1, 2, 5, 5, 4), {"kernel_shape": (1, 3)}, r"packed weights have shape \[1, 2, 3, 3, 4, 4\]"),
    ],
)
def test_conv_errors(shape, attributes, message):
    types = [TensorType(DType.FLOAT32, s) for s in (shape, (1, 2, 3, 3, 4, 4))]
    fitting = {"block": 4, "input_block": 4, "in_channels": 8, "out_channels": 4, "kernel_shape": (3, 3)}
    with pytest.raises(ShapeError, match=message):
        operators()["ConvBlocked"].infer(make_call("ConvBlocked", types, **(fitting | attributes)))


def test_packed_matmul_error():
    types = [TensorType(DType.FLOAT32, (2, 3)), TensorType(DType.FLOAT32, (2, 4, 8))]
    with pytest.raises(ShapeError, match="does not fit"):
        operators()["MatMulPacked"].infer(make_call("MatMulPacked", types, n=16, nr=8))
