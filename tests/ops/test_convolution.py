"""Conv and ConvTranspose against onnxruntime, and the form of their contractions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_oracle import array_call, assert_close, make_call, onnxruntime_result, ours, random

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Binary, Load, Reduce, Var
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.te import topological_order

EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def windows(draw, rank=None):
    """Kernel, strides, dilations and pads of 1 to 3 dimensions, and input sizes that the window fits."""
    rank = rank or draw(st.integers(1, 3))
    per_dimension = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel, strides, dilations = per_dimension(1, 4), per_dimension(1, 3), per_dimension(1, 3)
    begin, end, extra = per_dimension(0, 2), per_dimension(0, 2), per_dimension(0, 5)
    rows = zip(kernel, dilations, begin, end, extra, strict=True)
    sizes = [max(1, (k - 1) * d + 1 - b - e + x) for k, d, b, e, x in rows]
    return sizes, kernel, {"strides": strides, "dilations": dilations, "pads": begin + end}


channels = st.sampled_from([1, 2, 3, 5])


@EXAMPLES
@given(windows(), st.integers(1, 2), st.sampled_from([1, 2, 3]), channels, channels, st.booleans())
def test_conv(window, batch, group, per_group_in, per_group_out, with_bias):
    sizes, kernel, attributes = window
    x = random(batch, group * per_group_in, *sizes)
    w = random(group * per_group_out, per_group_in, *kernel, seed=1)
    b = random(group * per_group_out, seed=2) if with_bias else None
    got = ours("Conv", x, w, b, group=group, **attributes)
    assert_close(got, onnxruntime_result("Conv", x, w, b, group=group, **attributes))


@EXAMPLES
@given(windows(), st.sampled_from([1, 2]), channels, channels, st.booleans(), st.data())
def test_conv_transpose(window, group, per_group_in, per_group_out, with_bias, data):
    sizes, kernel, attributes = window
    extra = [data.draw(st.integers(0, s - 1)) for s in attributes["strides"]]
    attributes |= {"output_padding": extra, "group": group}
    rows = zip(sizes, kernel, attributes["strides"], attributes["dilations"], extra, strict=True)
    full = [(i - 1) * s + (k - 1) * d + 1 + e for i, k, s, d, e in rows]
    rank = len(kernel)
    pads = attributes["pads"]
    attributes["pads"] = [0 if pads[d % rank] + pads[(d + rank) % (2 * rank)] >= full[d % rank] else p
                          for d, p in enumerate(pads)]  # fmt: skip
    x = random(1, group * per_group_in, *sizes)
    w = random(group * per_group_in, per_group_out, *kernel, seed=1)
    b = random(group * per_group_out, seed=2) if with_bias else None
    if min(onnx_transposed_sizes(full, attributes["pads"])) < 1:
        return
    got = ours("ConvTranspose", x, w, b, **attributes)
    assert_close(got, onnxruntime_result("ConvTranspose", x, w, b, **attributes))


def onnx_transposed_sizes(full, pads):
    return [f - b - e for f, b, e in zip(full, pads[: len(full)], pads[len(full) :], strict=True)]


def test_float16_accumulates_in_float32():
    x, w = random(1, 64, 5, 5, dtype="float16"), random(3, 64, 3, 3, dtype="float16")
    b = random(3, dtype="float16")
    got = ours("Conv", x, w, b, pads=(1, 1, 1, 1))
    exact = ours("Conv", *(a.astype(np.float64) for a in (x, w, b)), pads=(1, 1, 1, 1))
    assert got.dtype == np.float16
    assert_close(got.astype(np.float64), exact, 1e-3)


def contraction(op, *arrays, **attributes):
    call, tensors = array_call(op, list(arrays), **attributes)
    outputs = operators()[op].lower(call, tensors)
    order = topological_order(outputs)
    (found,) = [t for t in order if isinstance(t.body, Reduce)]
    return found, {t.name: t for t in order}


def test_conv_is_a_sum_of_products_over_a_padded_tensor():
    found, tensors = contraction("Conv", random(1, 3, 8, 8), random(4, 3, 3, 3), random(4), pads=(1, 1, 1, 1))
    assert [a.name for a in found.axes] == ["n", "k", "h", "w"]
    assert [a.name for a in found.reduce_axes] == ["c", "kh", "kw"]
    product = found.body.operand
    assert isinstance(product, Binary) and product.op == "mul"
    assert isinstance(product.left, Load) and isinstance(product.right, Load)
    assert product.left.source is tensors["node.padded"]
    assert tensors["node.padded"].shape == (1, 3, 10, 10)
    assert "node.bias" in tensors


def test_no_padding_means_no_padded_tensor():
    found, tensors = contraction("Conv", random(1, 3, 8, 8), random(4, 3, 2, 2), strides=(3, 3))
    assert set(tensors) == {"x0", "x1", found.name}


def test_depthwise_reduces_over_taps_only():
    found, _ = contraction("Conv", random(1, 6, 5, 5), random(6, 1, 3, 3), group=6)
    assert [a.name for a in found.reduce_axes] == ["kh", "kw"]


def test_transposed_conv_has_dense_phases():
    found, tensors = contraction("ConvTranspose", random(1, 3, 8, 8), random(3, 4, 2, 2), strides=(2, 2))
    assert [a.name for a in found.axes] == ["n", "k", "rh", "rw", "h", "w"]
    assert found.shape == (1, 4, 2, 2, 8, 8)
    assert [a.extent for a in found.reduce_axes] == [3, 1, 1]
    assert "node.padded" not in tensors and "node.weights" not in tensors


def test_symbolic_sizes():
    height = Var("height")
    x = TensorType(DType.FLOAT32, (1, 3, height, 9))
    w = TensorType(DType.FLOAT32, (4, 3, 3, 3))
    (out,) = operators()["Conv"].infer(make_call("Conv", [x, w], pads=(1, 1, 1, 1)))
    assert out.shape == (1, 4, height, 9)


def test_wrong_channels_are_named():
    call, _ = array_call("Conv", [random(1, 3, 8, 8), random(4, 2, 3, 3)])
    with pytest.raises(ShapeError, match=r"Conv 'node': weights of shape \[4, 2, 3, 3\] in 1 groups do not fit"):
        operators()["Conv"].infer(call)


def test_window_larger_than_input_is_named():
    call, _ = array_call("Conv", [random(1, 3, 2, 8), random(4, 3, 3, 3)])
    with pytest.raises(ShapeError, match="a window over 3 elements does not fit into spatial dimension 0 of size 2"):
        operators()["Conv"].infer(call)


def test_integers_are_refused():
    call, _ = array_call("Conv", [random(1, 3, 8, 8, dtype="int8"), random(4, 3, 3, 3, dtype="int8")])
    with pytest.raises(DTypeError, match="must be of one float type"):
        operators()["Conv"].infer(call)
