"""Convolution by minimal filtering against the direct one, through its weights' transform."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_oracle import assert_close, make_call, ours, random

from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.ops.winograd import input_matrix, kernel_matrix, output_matrix, transform_weights

EXAMPLES = settings(max_examples=12, deadline=None, derandomize=True)
TILES = [(4, 3), (2, 3), (2, 5)]


@pytest.mark.parametrize(("tile", "kernel"), TILES)
def test_matrices_give_the_filter_exactly(tile, kernel):
    data = [Fraction(3 * i * i - 7, i + 2) for i in range(tile + kernel - 1)]
    taps = [Fraction(5 - 2 * i, 3) for i in range(kernel)]
    products = [
        sum(map(Fraction.__mul__, g, taps)) * sum(map(Fraction.__mul__, b, data))
        for g, b in zip(kernel_matrix(tile, kernel), input_matrix(len(data)), strict=True)
    ]
    found = [sum(map(Fraction.__mul__, row, products)) for row in output_matrix(tile, kernel)]
    assert found == [sum(data[o + k] * taps[k] for k in range(kernel)) for o in range(tile)]


def test_the_matrices_of_lavin_and_gray():
    assert [list(map(int, row)) for row in input_matrix(6)] == [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]  # fmt: skip
    assert [list(map(int, row)) for row in output_matrix(4, 3)] == [
        [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1],
    ]  # fmt: skip


def winograd_conv(x, w, b, block, tile, pads):
    attributes = {"block": block, "tile": tile}
    bias = None if b is None else ours("PackChannels", b, block=block)
    result = ours("ConvWinograd", ours("ToBlocked", x, block=block), ours("PackWinogradWeights", w, **attributes), bias,
                  out_channels=w.shape[0], kernel_shape=w.shape[2:], pads=pads, **attributes)  # fmt: skip
    return ours("FromBlocked", result, block=block, channels=w.shape[0])


@EXAMPLES
@given(st.sampled_from(TILES), st.integers(5, 10), st.integers(5, 10), st.tuples(*[st.integers(0, 2)] * 4),
       st.sampled_from([1, 4, 6]), st.booleans())  # fmt: skip
def test_conv(tile_and_kernel, height, width, pads, outputs, with_bias):
    tile, kernel = tile_and_kernel
    x, w = random(2, 4, height, width), random(outputs, 4, kernel, kernel, seed=1)
    b = random(outputs, seed=2) if with_bias else None
    assert_close(winograd_conv(x, w, b, 2, tile, pads), ours("Conv", x, w, b, pads=pads))


@pytest.mark.parametrize(("tile", "kernel"), TILES)
def test_weights_by_numpy_are_those_of_the_definition(tile, kernel):
    w, attributes = random(5, 4, kernel, kernel), {"block": 4, "tile": tile}
    found = transform_weights(w, attributes)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, ours("PackWinogradWeights", w, **attributes), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"tile": 3}, "no points for tiles of 3 and kernels of 3"),
        ({"tile": 6}, "no points for tiles of 6 and kernels of 3"),
        ({"strides": (1, 2)}, "only square kernels with steps of 1"),
        ({"out_channels": 9}, r"weights' shape should be \[6, 6, 3, 2, 4, 4\]"),
    ],
)
def test_conv_errors(attributes, message):
    types = [TensorType(DType.FLOAT32, s) for s in ((1, 2, 9, 9, 4), (6, 6, 2, 2, 4, 4))]
    fitting = {"block": 4, "tile": 4, "out_channels": 8, "kernel_shape": (3, 3)}
    with pytest.raises(ShapeError, match=message):
        operators()["ConvWinograd"].infer(make_call("ConvWinograd", types, **(fitting | attributes)))


@pytest.mark.parametrize(("shape", "message"), [((4, 4, 3, 1), "square kernels"), ((4, 6, 3, 3), "no whole blocks")])
def test_weight_errors(shape, message):
    call = make_call("PackWinogradWeights", [TensorType(DType.FLOAT32, shape)], block=4, tile=4)
    with pytest.raises(ShapeError, match=message):
        operators()["PackWinogradWeights"].infer(call)
