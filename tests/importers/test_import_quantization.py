"""Quantised models, compiled and run, against the ONNX reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_models import model, node

import polycomp

Array = np.ndarray[Any, Any]


def compare(
    op: str,
    inputs: Mapping[str, Array | None],
    given: int = 1,
    opset: int = 21,
    dtype: str = "int32",
    **attributes: Any,
) -> None:
    """``op`` of ``inputs``, the first ``given`` of them read while running, is what the reference evaluator says."""
    feeds = {n: a for n, a in list(inputs.items())[:given] if a is not None}
    constants = {n: a for n, a in list(inputs.items())[given:] if a is not None}
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    kinds["y"] = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = ["" if a is None else n for n, a in inputs.items()]
    shapes = {n: a.shape for n, a in feeds.items()}
    made = model([node(op, names, **attributes)], shapes, ("y",), constants, opset, kinds)
    (wanted,) = ReferenceEvaluator(made).run(None, feeds)
    got = polycomp.compile(made, threads=1, cache=False, jobs=1).run(feeds)["y"]
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(got, wanted)


def extremes(dtype: str, *shape: int) -> Array:
    """Random numbers of an integer type; the first row the smallest, the second one the largest."""
    limits = np.iinfo(dtype)
    values = np.random.default_rng([*shape]).integers(limits.min, limits.max + 1, shape).astype(dtype)
    values[0] = limits.min
    values[1 % len(values)] = limits.max
    return values


@pytest.mark.parametrize("types", [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8")])
@pytest.mark.parametrize(
    ("zeros", "shape"), [((None, None), (3, 8, 32)), ((7, 9), (1, 33, 47)), ((0, 100), (17, 5, 3))]
)
def test_matmul_integer(types: tuple[str, str], zeros: tuple[int | None, ...], shape: tuple[int, ...]) -> None:
    m, k, n = shape
    za, zb = (None if z is None else np.array(z, t) for z, t in zip(zeros, types, strict=True))
    compare("MatMulInteger", {"a": extremes(types[0], m, k), "b": extremes(types[1], k, n), "za": za, "zb": zb})


def test_matmul_integer_with_zero_points_per_row_and_column() -> None:
    zeros = {"za": np.array([[1], [200], [3]], np.uint8), "zb": np.array([5, -7, 100, 0], np.int8)}
    compare("MatMulInteger", {"a": extremes("uint8", 3, 6), "b": extremes("int8", 6, 4), **zeros})


def test_matmul_integer_of_two_inputs_and_batches() -> None:
    zeros = {"za": np.array(3, np.uint8), "zb": np.array(128, np.uint8)}
    compare("MatMulInteger", {"a": extremes("uint8", 2, 3, 6), "b": extremes("uint8", 6, 4), **zeros}, given=4)
    compare("MatMulInteger", {"a": extremes("int8", 2, 3, 6), "b": extremes("int8", 2, 6, 4)}, given=2)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_qlinear_matmul(dtype: str) -> None:
    a, b = extremes(dtype, 5, 12), extremes(dtype, 12, 7)
    numbers = {
        "as": np.float32(0.02),
        "az": np.array(3, dtype),
        "b": b,
        "bs": np.float32(0.01),
        "bz": np.array(2, dtype),
    }
    compare("QLinearMatMul", {"a": a, **numbers, "ys": np.float32(0.3), "yz": np.array(11, dtype)}, dtype=dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("form", ["tensor", "axis", "block", "uneven"])
def test_quantize_and_dequantize(dtype: str, form: str) -> None:
    x = np.random.default_rng(2).standard_normal((3, 6 if form != "uneven" else 5)).astype(np.float32) * 300
    shape = {"tensor": (), "axis": (3,), "block": (3, 3), "uneven": (3, 3)}[form]
    scale = np.random.default_rng(3).uniform(0.01, 2, shape).astype(np.float32)
    zero = np.random.default_rng(4).integers(0, 100, shape).astype(dtype)
    where = {"tensor": {}, "axis": {"axis": 0}}.get(form, {"axis": 1, "block_size": 2})
    compare("QuantizeLinear", {"x": x, "scale": scale, "zero": zero}, dtype=dtype, **where)
    compare(
        "DequantizeLinear", {"x": extremes(dtype, *x.shape), "scale": scale, "zero": zero}, dtype="float32", **where
    )
    compare("DequantizeLinear", {"x": extremes(dtype, *x.shape), "scale": scale}, dtype="float32", **where)


def test_scales_of_halves() -> None:
    scale, zero = np.array([0.5, 0.25, 1.5], np.float16), np.array([1, 2, 3], np.int8)
    compare("DequantizeLinear", {"x": extremes("int8", 3, 4), "scale": scale, "zero": zero}, dtype="float16", axis=0)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float16) * 40
    compare("QuantizeLinear", {"x": x, "scale": scale, "zero": zero}, dtype="int8", axis=0)


def test_dynamic_quantization_before_a_product() -> None:
    """What a quantiser of weights alone writes."""
    b, scale = extremes("int8", 6, 4), np.array(0.05, np.float32)
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "quantise"),
        node("MatMulInteger", ["q", "b", "z"], ["total"], "multiply"),
        node("Cast", ["total"], ["wide"], "cast", to=1),
        node("Mul", ["s", "scale"], ["both"], "scales"),
        node("Mul", ["wide", "both"], ["y"], "rescale"),
    ]
    made = model(nodes, {"x": (3, 6)}, ("y",), {"b": b, "scale": scale}, 21)
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)}
    (wanted,) = ReferenceEvaluator(made).run(None, feeds)
    got = polycomp.compile(made, threads=1, cache=False, jobs=1).run(feeds)["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("types", [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8")])
@pytest.mark.parametrize("form", ["plain", "padded", "grouped", "strided"])
def test_conv_integer(types: tuple[str, str], form: str) -> None:
    groups, shape = (2, (6, 2, 3, 3)) if form == "grouped" else (1, (6, 4, 3, 3))
    sizes: dict[str, Any] = {"group": groups}
    if form in ("padded", "strided"):
        sizes["pads"] = [1, 0, 2, 1]
    if form == "strided":
        sizes |= {"strides": [2, 1], "dilations": [1, 2]}
    zeros = {"zx": np.array(9, types[0]), "zw": np.array(100 if form != "plain" else 0, types[1])}
    compare("ConvInteger", {"x": extremes(types[0], 2, 4, 6, 7), "w": extremes(types[1], *shape), **zeros}, **sizes)


def test_conv_integer_of_computed_zero_points() -> None:
    zeros = {"zx": np.array(9, np.uint8), "zw": np.array(3, np.uint8)}
    inputs = {"x": extremes("uint8", 1, 4, 5, 5), "w": extremes("uint8", 3, 4, 2, 2), **zeros}
    compare("ConvInteger", inputs, given=4, pads=[1, 1, 0, 0])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_qlinear_conv(dtype: str, channels: int) -> None:
    random = np.random.default_rng(channels)
    inputs = {
        "x": extremes(dtype, 2, channels, 6, 5),
        "xs": np.float32(0.02),
        "xz": np.array(5, dtype),
        "w": random.integers(-128, 128, (18, channels, 3, 3)).astype(np.int8),
        "ws": random.uniform(0.001, 0.02, 18).astype(np.float32),
        "wz": np.zeros(18, np.int8),
        "ys": np.float32(0.1),
        "yz": np.array(3, dtype),
        "b": random.integers(-3000, 3000, 18).astype(np.int32),
    }
    compare("QLinearConv", inputs, dtype=dtype, pads=[1, 1, 1, 1])
