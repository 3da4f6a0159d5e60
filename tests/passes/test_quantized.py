"""Models as quantisers write them run in integers."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Array, Make, check, feeds_of, ops
from graph_oracle import evaluate_graph

from polycomp.graph import Graph
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.passes.quantized import integer_products
from polycomp.passes.simplify import simplify
from polycomp.passes.zero_points import take_out_zero_points


def quantized(m: Make, x: str, scale: float = 0.05, zero: int = 3, dtype: str = "uint8") -> str:
    """``x`` to bytes and back."""
    numbers = m.constant(scale), m.constant(zero, dtype)
    q = m.op("QuantizeLinear", x, *numbers, to=m.types[numbers[1]].dtype)
    return str(m.op("DequantizeLinear", q, *numbers))


def weights(m: Make, *shape: int, scale: Array | float = 0.01, zero: Array | int = 0, dtype: str = "int8") -> str:
    limits = np.iinfo(dtype)
    values = m.random.integers(limits.min, limits.max + 1, shape)
    return str(m.op("DequantizeLinear", m.constant(values, dtype), m.constant(scale), m.constant(zero, dtype)))


def per(size: int, *shape: int) -> Array:
    return np.linspace(0.005, 0.02, size).reshape(shape)


def in_integers(graph: Graph) -> dict[str, int]:
    """The operators after both passes, which keep the results."""
    changed = check(graph, integer_products)
    return ops(check(changed, take_out_zero_points))


@pytest.mark.parametrize("scale", [0.01, per(5, 1, 5)], ids=["one", "per column"])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", 0), ("uint8", 119), ("int8", 9)])
def test_matrix_products(scale: Array | float, dtype: str, zero: int) -> None:
    m = Make()
    y = m.op("MatMul", quantized(m, m.input(2, 3, 7)), weights(m, 7, 5, scale=scale, zero=zero, dtype=dtype))
    found = in_integers(m.graph(m.op("Add", y, m.weight(5))))
    assert found["MatMulInteger"] == 1 and "MatMul" not in found


def test_gemm() -> None:
    m = Make()
    w = weights(m, 5, 7, scale=per(5, 5, 1))
    y = m.op("Gemm", quantized(m, m.input(3, 7)), w, m.weight(5), transB=True, alpha=0.5, beta=2.0)
    assert in_integers(m.graph(y))["MatMulInteger"] == 1


@pytest.mark.parametrize(("group", "channels"), [(1, 3), (8, 8)])
def test_convolutions(group: int, channels: int) -> None:
    m = Make()
    w = weights(m, 8, channels // group, 3, 3, scale=per(8, 8, 1, 1, 1))
    y = m.conv(quantized(m, m.input(1, channels, 6, 5)), w, m.weight(8), group=group)
    found = in_integers(m.graph(quantized(m, m.op("Relu", y), 0.3)))
    assert found["ConvInteger"] == 1 and "Conv" not in found


def test_what_is_not_exact_stays() -> None:
    """Scales along the sum, sums that could overflow, data with a scale per row, weights that are computed."""
    m = Make()
    x = quantized(m, m.input(3, 7))
    along = m.op("MatMul", x, weights(m, 7, 5, scale=per(7, 7, 1)))
    long = m.op("MatMul", quantized(m, m.input(1, 40000)), weights(m, 40000, 1))
    computed = m.op("MatMul", x, quantized(m, m.input(7, 5)))
    rows = m.op("DequantizeLinear", m.input(3, 7, dtype="uint8"), m.constant(per(3, 3, 1)))
    by_row = m.op("MatMul", rows, weights(m, 7, 5))
    changed = integer_products(m.graph(along, long, computed, by_row), Options())
    assert ops(changed)["MatMul"] == 4


def moved(m: Make, op: str) -> str:
    x = quantized(m, m.input(1, 3, 6, 8), 0.25, 100)
    window = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    attributes: dict[str, dict[str, object]] = {
        "Transpose": {"perm": (0, 2, 1, 3)},
        "Reshape": {"shape": (3, 48)},
        "Pad": {"mode": "constant", "pads": (0, 0, 1, 2, 0, 0, 0, 1)},
        "MaxPool": {**window, "ceil_mode": False},
        "Concat": {"axis": 1},
    }
    inputs = (x, quantized(m, m.input(1, 3, 6, 8), 0.25, 100)) if op == "Concat" else (x,)
    return str(m.op(op, *inputs, **attributes[op]))


@pytest.mark.parametrize("op", ["Transpose", "Reshape", "Pad", "MaxPool", "Concat"])
def test_what_only_moves_numbers_moves_bytes(op: str) -> None:
    m = Make()
    found = ops(check(m.graph(quantized(m, moved(m, op), 0.25, 100)), integer_products))
    assert found["DequantizeLinear"] == 1 and found["QuantizeLinear"] == len(m.inputs)


def test_padding_of_bytes_becomes_that_of_the_convolution() -> None:
    m = Make()
    x = quantized(m, moved(m, "Pad"), 0.25, 100)
    graph = m.graph(m.conv(x, weights(m, 8, 3, 3, 3), pad=0))
    changed = check(check(check(graph, integer_products), take_out_zero_points), simplify)
    assert "Pad" not in ops(changed) and ops(changed)["ConvInteger"] == 1


@pytest.mark.parametrize(("scale", "zero", "dtype"), [(0.5, 100, "uint8"), (0.25, 99, "uint8"), (0.25, 100, "int8")])
def test_another_grid_is_quantized_again(scale: float, zero: int, dtype: str) -> None:
    m = Make()
    found = ops(check(m.graph(quantized(m, moved(m, "Transpose"), scale, zero, dtype)), integer_products))
    assert found["DequantizeLinear"] == 2


def test_a_quantized_network() -> None:
    """All convolutions and products are of bytes in the end, and each is one kernel with what follows."""
    m = Make()
    x = quantized(m, m.input(1, 3, 12, 12))
    y = quantized(m, m.op("Relu", m.conv(x, weights(m, 16, 3, 3, 3), m.weight(16))), 0.2, 0)
    y = quantized(m, m.op("Relu", m.conv(y, weights(m, 32, 16, 3, 3), m.weight(32), stride=2)), 0.4, 0)
    pooled = m.op("Reshape", m.op("GlobalAveragePool", y), shape=(1, 32))
    graph = m.graph(m.op("Gemm", quantized(m, pooled, 0.3, 0), weights(m, 10, 32), m.weight(10), transB=True))
    final = run_passes(graph, Options(verify=True))
    found = ops(final)
    assert found["ConvIntegerBlocked"] == 2 and found["MatMulInterleaved"] == 1
    assert not {"Conv", "MatMul", "Gemm", "ConvBlocked", "MatMulPacked"} & set(found)
    groups = [{n.op for n in group.nodes} for group in final.groups]
    assert all("QuantizeLinear" in g for g in groups if "ConvIntegerBlocked" in g)
    feeds = feeds_of(graph)
    (wanted,), (got,) = (list(evaluate_graph(g, feeds).values()) for g in (graph, final))
    np.testing.assert_allclose(got, wanted, rtol=0.02, atol=0.02 * float(np.abs(wanted).max()))
