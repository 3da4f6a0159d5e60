"""Simplification, folding, common subexpressions: what goes away, and that results stay."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Make, check, ops

from polycomp.expr import Var
from polycomp.graph import Symbol
from polycomp.passes.fold import fold_constants
from polycomp.passes.simplify import dead_code, eliminate_common, simplify


def test_dead_code() -> None:
    m = Make()
    x = m.input(3)
    m.op("Exp", x)
    unused = m.constant([1.0])
    graph = check(m.graph(m.op("Neg", x)), dead_code)
    assert ops(graph) == {"Neg": 1}
    assert unused not in graph.constants


def test_identities_go_and_outputs_keep_their_names() -> None:
    m = Make()
    y = m.op("Identity", m.op("Identity", m.op("Neg", m.op("Identity", m.input(3)))))
    graph = check(m.graph(y), simplify)
    assert ops(graph) == {"Neg": 1}
    assert graph.nodes[0].outputs == (y,)


def test_an_output_that_is_an_input_stays_an_identity() -> None:
    m = Make()
    assert ops(check(m.graph(m.op("Identity", m.input(3))), simplify)) == {"Identity": 1}


def test_two_outputs_of_one_value() -> None:
    m = Make()
    y = m.op("Neg", m.input(3))
    assert ops(check(m.graph(y, m.op("Identity", y)), simplify)) == {"Neg": 1, "Identity": 1}


def test_transposes_merge() -> None:
    m = Make()
    y = m.op("Transpose", m.op("Transpose", m.input(2, 3, 4), perm=(1, 2, 0)), perm=(2, 0, 1))
    assert ops(check(m.graph(m.op("Neg", y)), simplify)) == {"Neg": 1}


def test_transpose_of_ones_is_a_reshape() -> None:
    m = Make()
    y = m.op("Transpose", m.input(2, 1, 4), perm=(1, 0, 2))
    assert ops(check(m.graph(y), simplify)) == {"Reshape": 1}


def test_reshapes_merge_across_unary_operators() -> None:
    m = Make()
    y = m.op("Exp", m.op("Reshape", m.op("Neg", m.input(2, 6)), shape=(3, 4)))
    graph = check(m.graph(m.op("Reshape", y, shape=(2, 6))), simplify)
    assert ops(graph) == {"Neg": 1, "Exp": 1}


@pytest.mark.parametrize(
    ("op", "value", "swapped"),
    [("Add", 0.0, False), ("Add", 0.0, True), ("Mul", 1.0, True), ("Sub", 0.0, False), ("Div", 1.0, False)],
)
def test_neutral_operands(op: str, value: float, swapped: bool) -> None:
    m = Make()
    x, c = m.op("Neg", m.input(2, 3)), m.constant([value] * 3)
    y = m.op(op, *((c, x) if swapped else (x, c)))
    assert ops(check(m.graph(y), simplify)) == {"Neg": 1}


def test_a_neutral_operand_that_broadcasts_stays() -> None:
    m = Make()
    y = m.op("Add", m.input(3), m.constant(np.zeros((2, 3))))
    assert ops(check(m.graph(y), simplify)) == {"Add": 1}


@pytest.mark.parametrize(("power", "expected"), [(2.0, {"Mul": 1}), (3.0, {"Mul": 2}), (4.0, {"Pow": 1})])
def test_powers(power: float, expected: dict[str, int]) -> None:
    m = Make()
    assert ops(check(m.graph(m.op("Pow", m.input(5), m.constant(power))), simplify)) == expected


def test_division_by_a_power_of_two() -> None:
    m = Make()
    x = m.input(5)
    graph = m.graph(m.op("Div", x, m.constant(8.0)), m.op("Div", x, m.constant(3.0)))
    assert ops(check(graph, simplify)) == {"Mul": 1, "Div": 1}


def test_sums_become_additions() -> None:
    m = Make()
    y = m.op("Sum", m.input(3), m.input(2, 3), m.input(1))
    assert ops(check(m.graph(y), simplify)) == {"Add": 2}


def test_split_heads_are_slices_of_one_reshape() -> None:
    m = Make()
    parts = m.op("Split", m.input(2, 5, 24), n_outputs=3, axis=2, sizes=(8, 8, 8))
    heads = [m.op("Reshape", p, shape=(2, 5, 4, 2)) for p in parts]
    graph = check(m.graph(*heads), simplify)
    assert ops(graph) == {"Reshape": 3, "Slice": 3}
    assert ops(check(graph, eliminate_common)) == {"Reshape": 1, "Slice": 3}


def test_zero_pads_join_the_convolution() -> None:
    m = Make()
    padded = m.op("Pad", m.input(1, 2, 5, 6), pads=(0, 0, 1, 0, 0, 0, 2, 1), mode="constant")
    graph = check(m.graph(m.conv(padded, m.weight(3, 2, 3, 3))), simplify)
    assert ops(graph) == {"Conv": 1}
    assert graph.nodes[0].attributes["pads"] == (2, 1, 3, 2)


def test_other_pads_do_not() -> None:
    m = Make()
    padded = m.op("Pad", m.input(1, 2, 5, 6), pads=(0, 0, 1, 0, 0, 0, 2, 1), mode="edge")
    assert ops(check(m.graph(m.conv(padded, m.weight(3, 2, 3, 3))), simplify)) == {"Pad": 1, "Conv": 1}


def test_spatial_mean_is_a_pool() -> None:
    m = Make()
    y = m.op("ReduceMean", m.input(2, 3, 4, 5), axes=(2, 3), keepdims=False)
    assert ops(check(m.graph(y), simplify)) == {"GlobalAveragePool": 1, "Reshape": 1}


def test_expand_before_broadcasting() -> None:
    m = Make()
    wide = m.op("Expand", m.input(1, 3), shape=(4, 3))
    assert ops(check(m.graph(m.op("Add", wide, m.input(4, 3))), simplify)) == {"Add": 1}
    m = Make()
    wide = m.op("Expand", m.input(1, 3), shape=(4, 3))
    assert ops(check(m.graph(m.op("Add", wide, m.input(3))), simplify)) == {"Expand": 1, "Add": 1}


def test_reshape_moves_below_a_product_and_its_residual() -> None:
    """The rows of [n, s, c] flattened for a Gemm and brought back, as exporters of GPT-2 write it."""
    m = Make()
    x, residual = m.input(2, 5, 4), m.input(2, 5, 6)
    product = m.op("MatMul", m.op("Reshape", m.op("Neg", x), shape=(10, 4)), m.weight(4, 6))
    biased = m.op("Add", product, m.weight(6))
    y = m.op("Add", m.op("Reshape", biased, shape=(2, 5, 6)), m.op("Neg", residual))
    assert ops(check(m.graph(y), simplify)) == {"Neg": 2, "MatMul": 1, "Add": 2}


def test_symbolic_reshapes() -> None:
    m = Make()
    n = Var("n")
    y = m.op("Reshape", m.op("Reshape", m.op("Neg", m.input(n, 6)), shape=(n * 2, 3)), shape=(n, 6))
    assert ops(check(m.graph(y, symbols=(Symbol(n),)), simplify, {"n": 4})) == {"Neg": 1}


def test_common_subexpressions_and_constants() -> None:
    m = Make()
    x = m.input(4)
    parts = [m.op("Add", m.op("Exp", x), m.constant([1.0, 2.0, 3.0, 4.0])) for _ in range(2)]
    graph = check(m.graph(m.op("Mul", *parts)), eliminate_common)
    assert ops(graph) == {"Exp": 1, "Add": 1, "Mul": 1}
    assert len(graph.constants) == 1


def test_constants_fold() -> None:
    m = Make()
    total = m.op("Add", m.op("Exp", m.weight(3)), m.weight(3))
    graph = check(m.graph(m.op("Mul", m.input(3), m.op("Neg", total))), fold_constants)
    assert ops(graph) == {"Mul": 1}


def test_a_large_expansion_is_not_folded_unless_it_is_a_weight() -> None:
    m = Make()
    wide = m.op("Expand", m.weight(1, 1000), shape=(1000, 1000))
    assert "Expand" in ops(check(m.graph(m.op("Add", m.input(1, 1000), wide)), fold_constants))
    m = Make()
    filled = m.op("Fill", shape=(600, 600), value=0.5, dtype=m.types[m.input(2, 600)].dtype)
    flat = m.op("Transpose", m.op("Reshape", filled, shape=(600, 600)), perm=(1, 0))
    assert ops(check(m.graph(m.op("MatMul", "x0", flat)), fold_constants)) == {"MatMul": 1}


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("PackMatMul", (5, 7), {"nr": 4, "transposed": False}),
        ("PackMatMul", (5, 7), {"nr": 4, "transposed": True}),
        ("PackConvWeights", (6, 3, 2, 2), {"block": 4, "depthwise": False}),
        ("PackConvWeights", (6, 1, 2, 2), {"block": 4, "depthwise": True}),
        ("PackConvWeights", (6, 4, 2, 3), {"block": 4, "depthwise": False, "input_block": 2}),
        ("PackChannels", (6,), {"block": 4}),
        ("Transpose", (2, 3, 4), {"perm": (2, 0, 1)}),
    ],
)
def test_numpy_copies_agree_with_the_definitions(
    op: str, shape: tuple[int, ...], attributes: dict[str, object]
) -> None:
    m = Make()
    packed = m.op(op, m.weight(*shape), **attributes)
    graph = check(m.graph(m.op("Exp", m.op("Neg", packed))), fold_constants)
    assert ops(graph) == {"Exp": 1}


def _slice(m: Make, x: str, start: int, size: int) -> str:
    return str(m.op("Slice", x, starts=(0, start), steps=(1, 1), sizes=(2, size)))


def test_slices_that_are_put_together_again() -> None:
    m = Make()
    x = m.input(2, 6)
    a, b = m.op("Split", x, n_outputs=2, axis=1, sizes=(2, 4))
    y = m.op("Concat", a, b, m.op("Exp", b), axis=-1)
    graph = check(m.graph(y), simplify)
    assert ops(graph) == {"Slice": 1, "Exp": 1, "Concat": 1}
    assert graph.nodes[-1].inputs[0] == x


def test_a_split_that_is_undone() -> None:
    m = Make()
    x = m.op("Exp", m.input(2, 6))
    parts = m.op("Split", x, n_outputs=3, axis=1, sizes=(1, 2, 3))
    assert ops(check(m.graph(m.op("Neg", m.op("Concat", *parts, axis=1))), simplify)) == {"Exp": 1, "Neg": 1}


def test_slices_that_are_not_adjacent() -> None:
    m = Make()
    x, z = m.input(2, 6), m.input(2, 6)
    pairs = ((_slice(m, x, 2, 4), _slice(m, x, 0, 2)), (_slice(m, x, 0, 2), _slice(m, z, 2, 4)))
    for pair in pairs:
        assert ops(check(m.graph(m.op("Concat", *pair, axis=1)), simplify)) == {"Slice": 2, "Concat": 1}


def test_concatenations_of_all_before_go_on_with_the_last_one() -> None:
    m = Make()
    parts = [m.op("Exp", m.input(1, 2, 3)) for _ in range(4)]
    whole = [m.op("Concat", *parts[:n], axis=1) for n in (2, 3, 4)]
    graph = check(m.graph(*(m.op("Neg", w) for w in whole)), simplify)
    assert sorted(len(n.inputs) for n in graph.nodes if n.op == "Concat") == [2, 2, 2]


@pytest.mark.parametrize(("batch", "axis"), [(2, 1), (1, 2)])
def test_concatenations_of_scattered_pieces_do_not(batch: int, axis: int) -> None:
    m = Make()
    parts = [m.op("Exp", m.input(batch, 2, 3)) for _ in range(3)]
    graph = check(m.graph(*(m.op("Concat", *parts[:n], axis=axis) for n in (2, 3))), simplify)
    assert sorted(len(n.inputs) for n in graph.nodes if n.op == "Concat") == [2, 3]


@pytest.mark.parametrize(("condition", "left"), [([[True], [True]], 1), ([[False], [False]], 0)])
def test_a_choice_that_is_the_same_everywhere(condition: list[list[bool]], left: int) -> None:
    m = Make()
    x, y = m.op("Neg", m.input(2, 3)), m.op("Exp", m.input(2, 3))
    graph = check(m.graph(m.op("Where", m.constant(condition, "bool"), x, y)), simplify)
    assert ops(graph) == ({"Neg": 1} if left else {"Exp": 1})


def test_a_choice_that_differs_or_broadcasts_stays() -> None:
    m = Make()
    x, y = m.op("Neg", m.input(3)), m.op("Exp", m.input(2, 3))
    some = m.op("Where", m.constant([[True], [False]], "bool"), x, y)
    broadcast = m.op("Where", m.constant([True], "bool"), x, y)
    assert ops(check(m.graph(some, broadcast), simplify))["Where"] == 2
