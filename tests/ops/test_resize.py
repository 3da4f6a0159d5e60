"""Resize against onnxruntime in every mode."""

from __future__ import annotations

import numpy as np
import pytest
from operator_oracle import array_call, assert_close, make_call, onnxruntime_result, ours, random

from polycomp.errors import ShapeError, UnsupportedOperatorError
from polycomp.expr import Cast, Var, loads, walk
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.ops.resize import COORDINATES, ROUNDINGS
from polycomp.te import placeholder, topological_order
from polycomp.te.evaluate import evaluate

EMPTY = np.zeros(0, np.float32)
SCALES = [(2.0, 2.0), (0.5, 4.0), (0.7, 1.3), (1.0, 3.0)]
SIZES = [(5, 13), (14, 7), (1, 64)]


def check(x, scales=None, sizes=None, **attributes):
    head = x.shape[: x.ndim - len(scales or sizes)]
    if scales is not None:
        constants = (EMPTY, np.array([*(1.0 for _ in head), *scales], np.float32))
    else:
        constants = (EMPTY, EMPTY, np.array([*head, *sizes], np.int64))
    expected = onnxruntime_result("Resize", x, constants=constants, **attributes)
    ratios = tuple(float(np.float32(o) / np.float32(i)) for o, i in zip(expected.shape, x.shape, strict=True))
    full = ratios if scales is None else (*(1.0 for _ in head), *scales)
    assert_close(ours("Resize", x, sizes=expected.shape, scales=full, **attributes), expected, 2e-5)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest(coordinates, rounding):
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    for scales in SCALES:
        check(random(1, 2, 7, 9), scales=scales, **attributes)
    for sizes in SIZES:
        check(random(1, 2, 7, 9), sizes=sizes, **attributes)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation(coordinates, mode):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    for scales in SCALES:
        check(random(1, 2, 7, 9), scales=scales, **attributes)
    for sizes in SIZES:
        check(random(1, 2, 7, 9), sizes=sizes, **attributes)


@pytest.mark.parametrize("shape", [(1, 2, 7), (1, 2, 3, 4, 5)])
def test_linear_in_one_and_three_dimensions(shape):
    check(random(*shape), scales=(2.0,) * (len(shape) - 2), mode="linear")


def test_cubic_without_outside():
    check(random(1, 1, 5, 6), scales=(1.7, 2.0), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)


def test_float16_is_interpolated_in_float32():
    x = random(1, 1, 5, 6, dtype="float16")
    got = ours("Resize", x, sizes=(1, 1, 10, 12), scales=(1.0, 1.0, 2.0, 2.0), mode="linear")
    exact = ours("Resize", x.astype(np.float64), sizes=(1, 1, 10, 12), scales=(1.0, 1.0, 2.0, 2.0), mode="linear")
    assert got.dtype == np.float16
    assert_close(got.astype(np.float64), exact, 1e-3)


def test_sizes_that_change_nothing():
    x = random(1, 2, 3, 4)
    assert (ours("Resize", x, sizes=x.shape, scales=(1.0,) * 4, mode="cubic") == x).all()


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_upsampling_reads_at_integer_divisions(mode):
    call, tensors = array_call("Resize", [random(1, 2, 7, 9)], sizes=(1, 2, 14, 18), scales=(1, 1, 2.0, 2.0), mode=mode)
    for tensor in topological_order(operators()["Resize"].lower(call, tensors)):
        indices = [] if tensor.body is None else [i for load in loads(tensor.body) for i in load.indices]
        assert not [n for i in indices for n in walk(i) if isinstance(n, Cast)]


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_symbolic_sizes(mode):
    size = Var("size")
    x = placeholder((1, 1, size), "float32", "x")
    attributes = {"mode": mode, "sizes": (1, 1, size * 2), "scales": (1.0, 1.0, 2.0)}
    outputs = operators()["Resize"].lower(make_call("Resize", [TensorType(x.dtype, x.shape)], **attributes), [x])
    data = random(1, 1, 5)
    (got,) = evaluate(outputs, {x: data}, {size: 5})
    assert_close(got, ours("Resize", data, sizes=(1, 1, 10), scales=(1.0, 1.0, 2.0), mode=mode))


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_size_known_at_run_time(coordinates):
    target = Var("target")
    x = placeholder((1, 1, 5), "float32", "x")
    attributes = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    call = make_call("Resize", [TensorType(x.dtype, x.shape)], sizes=(1, 1, target), **attributes)
    outputs = operators()["Resize"].lower(call, [x])
    data = random(1, 1, 5)
    for size in (1, 7):
        (got,) = evaluate(outputs, {x: data}, {target: size})
        assert_close(got, ours("Resize", data, sizes=(1, 1, size), **attributes))


def test_unknown_mode_is_named():
    call, _ = array_call(
        "Resize", [random(1, 1, 4)], sizes=(1, 1, 8), coordinate_transformation_mode="tf_crop_and_resize"
    )
    with pytest.raises(
        UnsupportedOperatorError, match="'tf_crop_and_resize' is not supported; supported are half_pixel"
    ):
        operators()["Resize"].infer(call)


def test_wrong_number_of_sizes_is_named():
    call, _ = array_call("Resize", [random(1, 1, 4)], sizes=(8,))
    with pytest.raises(ShapeError, match="1 sizes for an input of shape"):
        operators()["Resize"].infer(call)
