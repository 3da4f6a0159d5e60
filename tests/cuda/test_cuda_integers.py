"""Products and convolutions of 8-bit integers: on tensor cores, and the same numbers as on a CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_harness.model import device_parts
from device_models import Trial, compile_for_races, expect_right
from gpu_machine import needs_harness
from onnx import numpy_helper, parser

Array = np.ndarray[Any, Any]

BYTES = ("int8", "uint8")
SIGNS = [(left, right) for left in BYTES for right in BYTES]


@dataclasses.dataclass(frozen=True)
class Layer:
    """``nodes`` in ONNX's text, of ``inputs`` and of ``constants`` of some element types and shapes, which are random,
    or given as arrays. ``y``, of type ``output``, is what comes out. N is 3."""

    nodes: str
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    constants: Mapping[str, tuple[str, tuple[int, ...]] | Array] = dataclasses.field(default_factory=dict)
    output: str = "int32"

    def model(self) -> onnx.ModelProto:
        inputs = ", ".join(f"{d}[{', '.join(map(str, dims))}] {n}" for n, (d, dims) in self.inputs.items())
        head = '<ir_version: 10, opset_import: ["" : 21]> layer'
        model = parser.parse_model(f"{head} ({inputs}) => ({self.output} y) {{{self.nodes}}}")
        for number, (name, given) in enumerate(self.constants.items()):
            array = given if isinstance(given, np.ndarray) else numbers(*given, seed=number + 10)
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        return model

    def trial(self) -> Trial:
        shapes = {n: (d, tuple(3 if x == "N" else int(x) for x in dims)) for n, (d, dims) in self.inputs.items()}
        return Trial(self.model(), [{n: numbers(*given, seed=i) for i, (n, given) in enumerate(shapes.items())}])


def numbers(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Of all that a type of integers has, or floats."""
    random = np.random.default_rng([seed, *shape])
    if dtype == "float":
        return random.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max + 1, shape).astype(dtype)


def number(value: float, dtype: str = "float32") -> Array:
    return np.array(value, dtype)


def products(left: str, right: str) -> dict[str, Layer]:
    """A matrix that is known when it is compiled, and ones that are not: with rows of whole vectors, and without."""
    known = Layer("y = MatMulInteger (a, b)", {"a": (left, (70, 100))}, {"b": (right, (100, 50))})
    turned = Layer("y = MatMulInteger (a, b)", {"a": (left, (33, 72)), "b": (right, (72, 80))})
    odd = Layer("y = MatMulInteger (a, b)", {"a": (left, (37, 53)), "b": (right, (53, 29))})
    return {f"{n} {left} {right}": x for n, x in (("known", known), ("turned", turned), ("odd", odd))}


def convolution(left: str, right: str) -> Layer:
    attributes = "<pads = [1, 1, 1, 1]>"
    shapes = {"x": (left, (2, 16, 9, 7))}, {"w": (right, (24, 16, 3, 3))}
    return Layer(f"y = ConvInteger {attributes} (x, w)", *shapes)


def zero_points(left: str, right: str) -> dict[str, Layer]:
    """Of operands, one or one per column (channel) of the weights."""
    pair = {"az": number(7, left), "bz": number(9, right)}
    columns, channels = (numbers(right, (n,), seed=5) for n in (50, 24))
    product, image = {"a": (left, (2, 35, 100))}, {"a": (left, (1, 16, 9, 7))}
    matrix, kernel = {"b": (right, (100, 50))}, {"b": (right, (24, 16, 3, 3))}
    convolved = "y = ConvInteger <pads = [1, 0, 2, 1], strides = [2, 1]> (a, b, az, bz)"
    return {
        "product": Layer("y = MatMulInteger (a, b, az, bz)", product, {**matrix, **pair}),
        "columns": Layer("y = MatMulInteger (a, b, az, bz)", product, {**matrix, **pair, "bz": columns}),
        "convolution": Layer(convolved, image, {**kernel, **pair}),
        "channels": Layer(convolved, image, {**kernel, **pair, "bz": channels}),
    }


_QUANTIZED = "x, xs, xz, w, ws, wz, ys, yz"
_GRIDS = {
    "xs": number(0.02), "xz": number(120, "uint8"), "wz": number(0, "int8"), "ys": number(0.9),
    "yz": number(3, "uint8"),
}  # fmt: skip
_NETWORK = """
    q = QuantizeLinear (x, xs, xz)
    d = DequantizeLinear (q, xs, xz)
    v = DequantizeLinear <axis = 0> (w, ws, wz)
    c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (d, v, bias)
    r = Relu (c)
    rq = QuantizeLinear (r, ys, yz)
    rd = DequantizeLinear (rq, ys, yz)
    v2 = DequantizeLinear <axis = 0> (w2, ws, wz)
    c2 = Conv <pads = [1, 1, 1, 1]> (rd, v2)
    y = QuantizeLinear (c2, zs, xz)
"""

LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        "batch": Layer("y = MatMulInteger (a, b)", {"a": ("int8", (2, 3, 18, 48)), "b": ("uint8", (3, 48, 32))}),
        "open": Layer("y = MatMulInteger (a, b)", {"a": ("uint8", ("N", 21, 64))}, {"b": ("int8", (64, 40))}),
        "image": Layer(
            "y = ConvInteger <pads = [3, 3, 3, 3], strides = [2, 2]> (x, w, z)",
            {"x": ("uint8", (1, 3, 20, 20))},
            {"w": ("int8", (16, 3, 7, 7)), "z": number(100, "uint8")},
        ),
        "points": Layer("y = ConvInteger (x, w)", {"x": ("uint8", (2, 40, 5, 6))}, {"w": ("int8", (20, 40, 1, 1))}),
        "lines": Layer(
            "y = ConvInteger <pads = [1, 1]> (x, w)", {"x": ("int8", (2, 12, 31)), "w": ("int8", (9, 12, 3))}
        ),
        "quantized product": Layer(
            f"y = QLinearMatMul ({_QUANTIZED})",
            {"x": ("uint8", (2, 30, 64))},
            {**_GRIDS, "w": ("int8", (64, 48)), "ws": number(0.01)},
            "uint8",
        ),
        "quantized convolution": Layer(
            f"y = QLinearConv <pads = [1, 1, 1, 1]> ({_QUANTIZED}, bias)",
            {"x": ("uint8", (1, 16, 8, 8))},
            {
                **_GRIDS, "w": ("int8", (24, 16, 3, 3)), "wz": np.zeros(24, np.int8),
                "ws": np.linspace(0.004, 0.01, 24, dtype=np.float32), "bias": np.arange(24, dtype=np.int32) * 100,
            },
            "uint8",
        ),
        "network": Layer(
            _NETWORK,
            {"x": ("float", (1, 3, 12, 12))},
            {
                **_GRIDS, "w": ("int8", (24, 3, 3, 3)), "w2": ("int8", (24, 24, 3, 3)), "wz": np.zeros(24, np.int8),
                "ws": np.linspace(0.004, 0.01, 24, dtype=np.float32), "bias": ("float", (24,)), "zs": number(3.0),
            },
            "uint8",
        ),
    }
)  # fmt: skip


def layers() -> dict[str, Layer]:
    made = dict(LAYERS)
    for left, right in SIGNS:
        made |= products(left, right) | {f"convolution {left} {right}": convolution(left, right)}
        made |= {f"{name}, zero points {left} {right}": x for name, x in zero_points(left, right).items()}
    return made


@pytest.mark.parametrize("name", layers())
def test_all_products_are_on_tensor_cores(name: str) -> None:
    """But for sums of windows, which zero points of weights are multiplied with."""
    _, sources = device_parts(layers()[name].model())
    products = {symbol: text for symbol, text in sources.items() if symbol.startswith(("conv", "mat_mul"))}
    others = [symbol for symbol, text in products.items() if "pc_mma_" not in text]
    assert len(products) > len(others)
    assert len(others) <= name.startswith(("convolution, zero", "channels, zero"))


@needs_harness
@pytest.mark.parametrize("first", range(0, len(layers()), 12))
def test_results_are_those_of_a_cpu(first: int) -> None:
    chosen = list(layers().items())[first : first + 12]
    expect_right({name: layer.trial() for name, layer in chosen})


@needs_harness
def test_no_threads_race() -> None:
    names = ("known int8 uint8", "turned uint8 int8", "odd int8 int8", "convolution uint8 int8", "image", "batch")
    expect_right({f"{name} races": layers()[name].trial() for name in names}, compile_for_races)
