"""Blocked layouts and packed matrices: what is chosen, where conversions stay, and that results are the same."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Make, check, ops

from polycomp.dtypes import DType
from polycomp.expr import Var
from polycomp.graph import Graph, Symbol
from polycomp.options import Options
from polycomp.panels import panel_width, wide_panel
from polycomp.passes.fold import fold_constants
from polycomp.passes.grouped import split_groups
from polycomp.passes.layout import choose_layout
from polycomp.passes.packing import pack_matrices
from polycomp.target import parse_target

TARGET = parse_target("x86_64-linux-gnu,features=avx2+fma")  # blocks of 8, panels of 16


def _blocked(graph: Graph, **sizes: int) -> Graph:
    blocked = check(graph, choose_layout, sizes, target=TARGET)
    return check(blocked, fold_constants, sizes, target=TARGET)


def test_residual_block() -> None:
    m = Make()
    x = m.op("Neg", m.input(1, 16, 10, 10))
    y = m.op("Relu", m.conv(x, m.weight(16, 16, 3, 3), m.weight(16)))
    y = m.op("Relu", m.op("Add", m.conv(y, m.weight(16, 16, 3, 3)), x))
    graph = _blocked(m.graph(y))
    assert ops(graph) == {"Neg": 1, "ToBlocked": 1, "ConvWinograd": 2, "Relu": 2, "Add": 1, "FromBlocked": 1}


@pytest.mark.parametrize(("stride", "group", "kernel"), [(2, 1, (3, 3)), (1, 1, (1, 3)), (1, 16, (3, 3))])
def test_what_cannot_be_filtered_is_direct(stride: int, group: int, kernel: tuple[int, int]) -> None:
    m = Make()
    x = m.input(1, 16, 9, 9)
    y = m.op("Conv", x, m.weight(16, 16 // group, *kernel), strides=(stride,) * 2, dilations=(1, 1), pads=(1, 1, 1, 1),
             group=group)  # fmt: skip
    assert ops(_blocked(m.graph(y)))["ConvBlocked"] == 1


def test_the_image_is_read_plain() -> None:
    m = Make()
    y = m.conv(m.input(1, 3, 8, 8), m.weight(16, 3, 3, 3), stride=2)
    graph = _blocked(m.graph(y))
    assert ops(graph) == {"ConvBlocked": 1, "FromBlocked": 1}
    assert graph.nodes[0].attributes["input_block"] == 0


@pytest.mark.parametrize("channels", [12, 16])
def test_depthwise(channels: int) -> None:
    m = Make()
    y = m.conv(m.input(1, channels, 5, 5), m.weight(channels, 1, 3, 3), group=channels)
    assert ops(_blocked(m.graph(y))) == {"ToBlocked": 1, "ConvBlocked": 1, "FromBlocked": 1}


def test_grouped_convolutions_stay_plain() -> None:
    m = Make()
    y = m.conv(m.input(1, 16, 5, 5), m.weight(16, 8, 3, 3), group=2)
    assert ops(_blocked(m.graph(y))) == {"Conv": 1}


def test_what_follows_convolutions_is_blocked_too() -> None:
    m = Make()
    y = m.conv(m.input(1, 16, 8, 8), m.weight(16, 16, 1, 1), pad=0)
    pool = {"kernel_shape": (2, 2), "strides": (2, 2), "dilations": (1, 1), "pads": (0,) * 4, "ceil_mode": False}
    y = m.op("Clip", m.op("MaxPool", y, **pool), min=0.0, max=6.0)
    y = m.op("Mul", y, m.weight(16, 1, 1))
    y = m.op("Add", y, m.weight(1, 1, 4, 4))
    y = m.op("Mul", y, m.constant(2.0))
    y = m.op("Pad", y, pads=(0, 0, 1, 1, 0, 0, 1, 1), mode="constant")
    y = m.op("GlobalAveragePool", m.op("Concat", y, y, axis=1))
    graph = _blocked(m.graph(m.op("Reshape", y, shape=(1, 32))))
    expected = {"ToBlocked": 1, "ConvBlocked": 1, "MaxPoolBlocked": 1, "Clip": 1, "Mul": 2, "Add": 1, "Pad": 1}
    assert ops(graph) == {**expected, "Concat": 1, "GlobalAveragePoolBlocked": 1, "Reshape": 2}


@pytest.mark.parametrize(("size", "op"), [(5, "LRNBlocked"), (9, "LRN")])
def test_responses_are_blocked_when_a_window_fits(size: int, op: str) -> None:
    m = Make()
    y = m.conv(m.input(1, 16, 4, 4), m.weight(12, 16, 1, 1), pad=0)
    y = m.op("LRN", y, size=size, alpha=0.1, beta=0.75, bias=1.0)
    assert ops(_blocked(m.graph(y))) == {"ToBlocked": 1, "ConvBlocked": 1, op: 1, "FromBlocked": 1}


def test_gate_per_channel() -> None:
    """Squeeze and excitation: a computed [N, C, 1, 1] broadcasts over the blocked tensor."""
    m = Make()
    y = m.conv(m.input(2, 16, 5, 5), m.weight(16, 16, 1, 1), pad=0)
    gate = m.op("Sigmoid", m.conv(m.op("GlobalAveragePool", y), m.weight(16, 16, 1, 1), pad=0))
    graph = _blocked(m.graph(m.op("Mul", y, gate)))
    assert ops(graph)["ConvBlocked"] == 2
    assert ops(graph)["ToBlocked"] == ops(graph)["FromBlocked"] == 1


def test_channels_that_do_not_fill_blocks() -> None:
    m = Make()
    x = m.input(1, 12, 5, 5)
    parts = [m.op("Relu", m.conv(x, m.weight(12, 12, 3, 3), m.weight(12))) for _ in range(2)]
    y = m.conv(m.op("Concat", *parts, axis=1), m.weight(20, 24, 3, 3))
    graph = _blocked(m.graph(y))
    assert ops(graph) == {"ToBlocked": 2, "ConvBlocked": 3, "Relu": 2, "FromBlocked": 3, "Concat": 1}


def test_symbolic_batch() -> None:
    m = Make()
    n = Var("n")
    y = m.op("Relu", m.conv(m.input(n, 8, 5, 5), m.weight(8, 8, 3, 3)))
    graph = _blocked(m.graph(y, symbols=(Symbol(n),)), n=3)
    assert ops(graph)["ConvBlocked"] == 1


def test_symbolic_space_stays_plain() -> None:
    m = Make()
    n = Var("n")
    y = m.conv(m.input(1, 8, n, 5), m.weight(8, 8, 3, 3))
    assert ops(_blocked(m.graph(y, symbols=(Symbol(n),)), n=4)) == {"Conv": 1}


def test_float64_stays_plain() -> None:
    m = Make()
    y = m.conv(m.input(1, 8, 5, 5, dtype="float64"), m.constant(m.random.random((8, 8, 3, 3)), "float64"))
    assert ops(_blocked(m.graph(y))) == {"Conv": 1}


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_constant_matrices_are_packed_with_their_bias(shape: tuple[int, ...]) -> None:
    m = Make()
    y = m.op("Add", m.weight(1, 18), m.op("MatMul", m.input(*shape), m.weight(5, 18)))
    packed = check(m.graph(m.op("Relu", y)), pack_matrices, target=TARGET)
    graph = check(packed, fold_constants, target=TARGET)
    assert ops(graph) == {"MatMulPacked": 1, "Relu": 1}
    assert graph.types[graph.nodes[0].inputs[1]].shape == (2, 5, 16)
    assert len(graph.nodes[0].inputs) == 3


def test_a_bias_per_row_is_an_epilogue() -> None:
    m = Make()
    y = m.op("Add", m.op("MatMul", m.input(3, 5), m.weight(5, 18)), m.weight(3, 1))
    assert ops(check(m.graph(y), pack_matrices)) == {"PackMatMul": 1, "MatMulPacked": 1, "Add": 1}


def test_computed_matrices_are_not_packed() -> None:
    m = Make()
    assert ops(check(m.graph(m.op("MatMul", m.input(3, 5), m.input(5, 4))), pack_matrices)) == {"MatMul": 1}


def test_panel_width() -> None:
    assert panel_width(TARGET) == panel_width(TARGET, DType.FLOAT16) == 16
    assert panel_width(TARGET, DType.FLOAT64) == 8
    assert panel_width(parse_target("aarch64-linux-gnu")) == 8


def test_panels_are_as_wide_as_registers_allow_without_many_zeros() -> None:
    wide = parse_target("aarch64-linux-gnu")
    assert [wide_panel(n, wide) for n in (8, 12, 16, 24, 32, 80)] == [8, 12, 16, 12, 16, 16]
    assert wide_panel(768, TARGET) == panel_width(TARGET)


@pytest.mark.parametrize(("rows", "depth", "width"), [(3, 300, 8), (600, 5, 8), (600, 300, 16)])
def test_panels_are_wide_for_many_rows_and_steps(rows: int, depth: int, width: int) -> None:
    m, wide = Make(), parse_target("aarch64-linux-gnu")
    graph = pack_matrices(m.graph(m.op("MatMul", m.input(rows, depth), m.weight(depth, 32))), Options(target=wide))
    assert [n.attributes["nr"] for n in graph.nodes if n.op == "PackMatMul"] == [width]


def _grouped(graph: Graph) -> Graph:
    split = check(graph, split_groups, target=TARGET)
    return check(check(split, choose_layout, target=TARGET), fold_constants, target=TARGET)


@pytest.mark.parametrize("bias", [False, True])
def test_groups_of_whole_blocks_are_convolutions_of_their_own(bias: bool) -> None:
    m = Make()
    x = m.op("Relu", m.conv(m.input(1, 16, 5, 5), m.weight(16, 16, 1, 1), pad=0))
    y = m.conv(x, m.weight(32, 8, 3, 3), *((m.weight(32),) if bias else ()), group=2)
    expected = {"ToBlocked": 1, "ConvBlocked": 3, "Relu": 1, "Slice": 2, "Concat": 1, "FromBlocked": 1}
    assert ops(_grouped(m.graph(y))) == expected


@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_groups_are_a_batched_product(bias: bool) -> None:
    m = Make()
    biases = (m.weight(9),) if bias else ()
    y = m.conv(m.input(2, 6, 5, 4), m.weight(9, 2, 1, 1), *biases, group=3, pad=0)
    expected = {"Reshape": 2, "MatMul": 1, **({"Add": 1} if bias else {})}
    assert ops(_grouped(m.graph(y))) == expected


@pytest.mark.parametrize(("pad", "stride", "kernel"), [(1, 1, 3), (0, 2, 1), (1, 1, 1)])
def test_other_groups_stay(pad: int, stride: int, kernel: int) -> None:
    m = Make()
    y = m.conv(m.input(1, 6, 5, 5), m.weight(9, 2, kernel, kernel), group=3, pad=pad, stride=stride)
    assert ops(_grouped(m.graph(y))) == {"Conv": 1}


def test_halves_are_blocked_but_not_filtered() -> None:
    m = Make()
    weights = m.constant(m.random.standard_normal((32, 32, 3, 3)) * 0.1, "float16")
    convolved = m.conv(m.input(1, 32, 9, 9, dtype="float16"), weights)
    scaled = m.op("Mul", convolved, m.constant(np.full((1, 32, 1, 1), 0.5), "float16"))
    graph = m.graph(m.op("Relu", scaled))
    found = ops(choose_layout(graph, Options()))
    assert found["ConvBlocked"] == 1 and "ConvWinograd" not in found and found["FromBlocked"] == 1
