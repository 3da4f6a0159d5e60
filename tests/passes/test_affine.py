"""Scales and shifts folded into weights, and idioms recognised as operators."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graph_builder import Make, check, ops

from polycomp.passes.affine import fold_affine
from polycomp.passes.fold import fold_constants
from polycomp.passes.recognise import recognise


def _batch_normalization(m: Make, x: str, channels: int) -> str:
    parameters = [m.weight(channels) for _ in range(4)]
    return str(m.op("BatchNormalization", x, *parameters, epsilon=1e-5))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_normalization_after_convolution(bias: bool, group: int) -> None:
    m = Make()
    biases = (m.weight(4),) if bias else ()
    y = m.conv(m.input(1, 2, 5, 5), m.weight(4, 2 // group, 3, 3), *biases, group=group)
    graph = check(m.graph(m.op("Relu", _batch_normalization(m, y, 4))), fold_affine)
    assert ops(graph) == {"Conv": 1, "Relu": 1}
    assert len(graph.nodes[0].inputs) == 3


@pytest.mark.parametrize("group", [1, 2])
def test_batch_normalization_after_transposed_convolution(group: int) -> None:
    m = Make()
    sizes = {"strides": (2, 2), "dilations": (1, 1), "pads": (0,) * 4, "output_padding": (0, 0), "group": group}
    y = m.op("ConvTranspose", m.input(1, 4, 3, 3), m.weight(4, 6 // group, 2, 2), **sizes)
    assert ops(check(m.graph(_batch_normalization(m, y, 6)), fold_affine)) == {"ConvTranspose": 1}


def test_batch_normalization_elsewhere_is_a_product_and_a_sum() -> None:
    m = Make()
    y = _batch_normalization(m, m.op("Neg", m.input(2, 3, 4)), 3)
    assert ops(check(m.graph(y), fold_affine)) == {"Neg": 1, "Mul": 1, "Add": 1}


def test_a_convolution_with_two_readers_keeps_its_weights() -> None:
    m = Make()
    y = m.conv(m.input(1, 2, 5, 5), m.weight(4, 2, 3, 3))
    graph = check(m.graph(y, _batch_normalization(m, y, 4)), fold_affine)
    assert ops(graph) == {"Conv": 1, "Mul": 1, "Add": 1}


def test_scale_after_batch_normalization() -> None:
    m = Make()
    y = _batch_normalization(m, m.conv(m.input(1, 2, 5, 5), m.weight(4, 2, 3, 3)), 4)
    y = m.op("Add", m.op("Mul", y, m.weight(1, 4, 1, 1)), m.weight(4, 1, 1))
    assert ops(check(m.graph(y), fold_affine)) == {"Conv": 1}


def test_scale_per_position_is_not_folded() -> None:
    m = Make()
    y = m.conv(m.input(1, 2, 5, 5), m.weight(4, 2, 3, 3))
    assert ops(check(m.graph(m.op("Mul", y, m.weight(5, 5))), fold_affine)) == {"Conv": 1, "Mul": 1}


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(transposed: bool) -> None:
    m = Make()
    weights = m.weight(6, 4) if transposed else m.weight(4, 6)
    flags = {"alpha": 0.5, "beta": 2.0, "transA": False, "transB": transposed}
    y = m.op("Gemm", m.input(3, 4), weights, m.weight(6), **flags)
    graph = check(check(m.graph(y), fold_affine), fold_constants)
    assert ops(check(graph, fold_affine)) == {"MatMul": 1, "Add": 1}


def test_a_scale_passes_a_bias_on_its_way_to_the_weights() -> None:
    m = Make()
    y = m.op("Add", m.op("MatMul", m.input(3, 4), m.weight(4, 6)), m.weight(6))
    assert ops(check(m.graph(m.op("Mul", y, m.constant(0.125))), fold_affine)) == {"MatMul": 1, "Add": 1}


def _layer_normalization(m: Make, x: str, square: str) -> str:
    mean = m.op("ReduceMean", x, axes=(2,), keepdims=True)
    centred = m.op("Sub", x, mean)
    squared = m.op("Pow", centred, m.constant(2.0)) if square == "Pow" else m.op("Mul", centred, centred)
    variance = m.op("ReduceMean", squared, axes=(2,), keepdims=True)
    return str(m.op("Div", centred, m.op("Sqrt", m.op("Add", variance, m.constant(1e-5)))))


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_layer_normalization(square: str, parameters: int) -> None:
    m = Make()
    y = _layer_normalization(m, m.input(2, 3, 8), square)
    if parameters:
        y = m.op("Mul", m.weight(8), y)
    if parameters > 1:
        y = m.op("Add", y, m.weight(1, 1, 8))
    graph = check(m.graph(y), recognise)
    assert ops(graph) == {"LayerNormalization": 1}
    assert graph.nodes[0].attributes["axis"] == 2


def test_layer_normalization_whose_parts_are_read_elsewhere_stays() -> None:
    m = Make()
    x = m.input(2, 3, 8)
    y = _layer_normalization(m, x, "Mul")
    variance = next(n.outputs[0] for n in m.nodes if n.op == "Sqrt")
    assert "LayerNormalization" not in ops(check(m.graph(y, variance), recognise))


def test_rms_normalization() -> None:
    m = Make()
    x = m.input(2, 3, 8)
    mean = m.op("ReduceMean", m.op("Mul", x, x), axes=(2,), keepdims=True)
    root = m.op("Reciprocal", m.op("Sqrt", m.op("Add", mean, m.constant(1e-6))))
    y = m.op("Mul", m.op("Mul", x, root), m.weight(8))
    assert ops(check(m.graph(y), recognise)) == {"RMSNormalization": 1}


@pytest.mark.parametrize("axis", [0, 2])
def test_softmax(axis: int) -> None:
    m = Make()
    x = m.input(2, 3, 8)
    powers = m.op("Exp", m.op("Sub", x, m.op("ReduceMax", x, axes=(axis,), keepdims=True)))
    y = m.op("Div", powers, m.op("ReduceSum", powers, axes=(axis,), keepdims=True))
    graph = check(m.graph(y), recognise)
    assert ops(graph) == {"Softmax": 1} and graph.nodes[0].attributes["axis"] == axis


def test_what_is_no_softmax() -> None:
    m = Make()
    x = m.input(2, 3, 8)
    powers = m.op("Exp", m.op("Sub", x, m.op("ReduceMax", x, axes=(1,), keepdims=True)))
    y = m.op("Div", powers, m.op("ReduceSum", powers, axes=(2,), keepdims=True))
    assert "Softmax" not in ops(check(m.graph(y), recognise))


def _erf_gelu(m: Make, x: str) -> str:
    inner = m.op("Add", m.op("Erf", m.op("Div", x, m.constant(math.sqrt(2)))), m.constant(1.0))
    return str(m.op("Mul", m.op("Mul", x, inner), m.constant(0.5)))


def _tanh_gelu(m: Make, x: str) -> str:
    cube = m.op("Mul", m.op("Pow", x, m.constant(3.0)), m.constant(0.044715))
    inner = m.op("Tanh", m.op("Mul", m.op("Add", x, cube), m.constant(math.sqrt(2 / math.pi))))
    return str(m.op("Mul", m.op("Mul", m.constant(0.5), x), m.op("Add", m.constant(1.0), inner)))


@pytest.mark.parametrize(("build", "approximate"), [(_erf_gelu, "none"), (_tanh_gelu, "tanh")])
def test_gelu(build: Callable[[Make, str], str], approximate: str) -> None:
    m = Make()
    graph = check(m.graph(build(m, m.input(2, 8))), recognise)
    assert ops(graph) == {"Gelu": 1}
    assert graph.nodes[0].attributes == {"approximate": approximate}


def test_a_constant_that_is_almost_right_is_not_enough() -> None:
    m = Make()
    x = m.input(2, 8)
    inner = m.op("Add", m.op("Erf", m.op("Div", x, m.constant(1.5))), m.constant(1.0))
    y = m.op("Mul", m.op("Mul", x, inner), m.constant(0.5))
    assert "Gelu" not in ops(check(m.graph(y), recognise))


def test_swish_and_hard_swish() -> None:
    m = Make()
    x = m.input(2, 8)
    gate = m.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    graph = m.graph(m.op("Mul", m.op("Sigmoid", x), x), m.op("Mul", x, gate))
    assert ops(check(graph, recognise)) == {"Swish": 1, "HardSwish": 1}


def test_float64_folding_is_exact_where_float32_would_not_be() -> None:
    m = Make()
    scale, shift = m.constant([1e4]), m.constant([0.0])
    mean, variance = m.constant([1.0]), m.constant([1e-8])
    x = m.constant(np.ones((1, 1, 1)))
    y = m.op("BatchNormalization", m.op("Add", m.input(1, 1, 1), x), scale, shift, mean, variance, epsilon=0.0)
    check(m.graph(m.op("Mul", y, m.constant(1e-9))), fold_affine)


def test_numbers_that_operands_of_a_product_are_scaled_by_scale_its_result() -> None:
    m = Make()
    x, y = (m.op("Mul", m.input(*shape), m.constant(0.5)) for shape in ((2, 3, 4), (2, 4, 5)))
    graph = check(m.graph(m.op("MatMul", x, y)), fold_affine)
    assert [n.op for n in graph.nodes] == ["MatMul", "Mul"]


def test_an_operand_scaled_by_rows_or_needed_elsewhere_stays_scaled() -> None:
    m = Make()
    by_row = m.op("Mul", m.input(3, 4), m.constant([[1.0], [2.0], [3.0]]))
    shared = m.op("Mul", m.input(4, 5), m.constant(0.5))
    graph = check(m.graph(m.op("MatMul", by_row, shared), shared), fold_affine)
    assert [n.op for n in graph.nodes] == ["Mul", "Mul", "MatMul"]
