"""Mixed precision: what is kept in 16 bits, what is not, and that the results are as in float32 but for rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_builder import Make, feeds_of, ops
from graph_oracle import evaluate_graph

from polycomp.dtypes import DType
from polycomp.errors import InputError
from polycomp.expr import Var
from polycomp.graph import Graph, Symbol, verify
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.passes import explain_precision, run_passes
from polycomp.passes.precision import (
    KEPT_OPERATORS,
    NORMALISING,
    PRODUCTS,
    SAME,
    Kept,
    kept_in_float32,
    misfit,
    mixed_precision,
)
from polycomp.target import parse_target

HALF = "float16"
TOLERANCE = {"float16": 5e-3, "bfloat16": 4e-2}


def changed(graph: Graph, precision: str = HALF, sizes: dict[str, int] | None = None, **options: Any) -> Graph:
    """The graph in mixed precision, after checking that it is well formed and computes about the same."""
    made = mixed_precision(graph, Options(precision=precision, **options))
    verify(made, operators())
    assert made.outputs == graph.outputs
    assert [made.types[v] for v in (*made.inputs, *made.outputs)] == [
        graph.types[v] for v in (*graph.inputs, *graph.outputs)
    ]
    feeds = feeds_of(graph, sizes)
    expected, found = evaluate_graph(graph, feeds), evaluate_graph(made, feeds)
    for output in graph.outputs:
        scale = np.max(np.abs(expected[output]), initial=1e-3)
        np.testing.assert_allclose(found[output] / scale, expected[output] / scale, rtol=0, atol=TOLERANCE[precision])
    return made


def types_of(graph: Graph) -> dict[str, list[str]]:
    """The element types of what each operator computes, in order; those of conversions aside."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op != "Cast":
            found.setdefault(node.op, []).append(graph.types[node.outputs[0]].dtype.value)
    return found


def reasons(graph: Graph, precision: str = HALF, **options: Any) -> dict[str, str]:
    """Why operators stay in float32."""
    found = kept_in_float32(graph, Options(precision=precision, **options))
    return {reason.node.op: reason.text for reason in found}


def product(m: Make, x: str) -> str:
    """A product of matrices, after which everything may be narrow."""
    depth = m.types[x].shape[-1]
    assert isinstance(depth, int)
    return str(m.op("MatMul", x, m.constant(m.random.normal(0, depth**-0.5, (depth, depth)))))


def test_float32_changes_nothing() -> None:
    m = Make()
    graph = m.graph(product(m, m.input(4, 8)))
    assert mixed_precision(graph, Options()) is graph
    assert {r.text for r in kept_in_float32(graph, Options())} == {"float32 was asked for"}


def test_every_operator_on_floats_is_on_some_list() -> None:
    made_later = {
        "ConvBlocked", "ConvWinograd", "MatMulPacked", "AveragePoolBlocked", "GlobalAveragePoolBlocked",
        "GlobalMaxPoolBlocked", "LRNBlocked", "LpPoolBlocked", "MaxPoolBlocked", "ToBlocked", "FromBlocked",
        "PackChannels", "PackConvInterleaved", "PackConvWeights", "PackInterleaved", "PackMatMul",
        "PackWinogradWeights",
    }  # fmt: skip
    makes_no_floats = {
        "And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "ConvInteger",
        "ConvIntegerBlocked", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual",
        "MatMulInteger", "MatMulInterleaved", "Not", "Or", "QuantizeLinear", "Xor",
    }  # fmt: skip
    lists = [PRODUCTS, SAME, NORMALISING, frozenset(KEPT_OPERATORS), frozenset(["Cast"])]
    assert sum(map(len, lists)) == len(frozenset().union(*lists))
    assert frozenset().union(*lists) == operators().keys() - made_later - makes_no_floats


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_weights_and_what_lies_between_products_have_16_bits(precision: str) -> None:
    m = Make()
    x = product(m, m.op("Relu", m.op("Add", product(m, m.input(4, 8)), m.weight(8))))
    made = changed(m.graph(x), precision)
    assert types_of(made) == {"MatMul": [precision] * 2, "Add": [precision], "Relu": [precision]}
    assert ops(made)["Cast"] == 2  # the input's, and the output's
    assert {array.dtype for array in made.constants.values()} == {DType(precision).numpy}


def test_a_convolutions_bias_stays_in_float32() -> None:
    m = Make()
    made = changed(m.graph(m.conv(m.input(1, 4, 8, 8), m.weight(8, 4, 3, 3), m.weight(8))))
    (conv,) = (n for n in made.nodes if n.op == "Conv")
    assert [made.types[i].dtype.value for i in conv.inputs] == ["float16", "float16", "float32"]


def test_statistics_are_float32_inside_of_their_kernel() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    x = m.op("LayerNormalization", x, m.weight(8), m.weight(8), axis=-1, epsilon=1e-5)
    x = product(m, m.op("Softmax", x, axis=-1))
    made = changed(m.graph(x))
    assert types_of(made) == {"MatMul": [HALF] * 2, "LayerNormalization": [HALF], "Softmax": [HALF]}
    (norm,) = (n for n in made.nodes if n.op == "LayerNormalization")
    assert [made.types[i].dtype.value for i in norm.inputs] == ["float16", "float32", "float32"]
    assert reasons(m.graph(x)) == {}


@pytest.mark.parametrize(
    ("op", "attributes", "why"),
    [
        ("Exp", {}, "its results may be beyond the range of float16"),
        ("Sinh", {}, "its results may be beyond the range of float16"),
        ("Erf", {}, "its results have more digits than 16 bits"),
        ("ReduceSum", {"axes": (1,), "keepdims": True}, "it sums many elements"),
        ("ReduceMean", {"axes": (1,), "keepdims": True}, "it sums many elements"),
        ("LogSoftmax", {"axis": 1}, "it sums many elements"),
    ],
)
def test_what_needs_float32_has_it(op: str, attributes: dict[str, Any], why: str) -> None:
    m = Make()
    graph = m.graph(m.op(op, product(m, m.input(4, 8)), **attributes))
    assert types_of(changed(graph))[op] == ["float32"]
    assert reasons(graph) == {op: why}


def test_a_square_is_a_power() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    graph = m.graph(m.op("Mul", x, x))
    assert reasons(graph) == {"Mul": "its results may be beyond the range of float16"}
    assert reasons(graph, "bfloat16") == {"Mul": "its results have more digits than 16 bits"}
    assert types_of(changed(graph))["Mul"] == ["float32"]


def test_what_is_made_of_large_numbers_is_large_until_a_product_or_a_normalisation() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    large = m.op("Add", m.op("Exp", x), x)
    norm = m.op("Softmax", large, axis=-1)
    y = m.op("Relu", product(m, m.op("Neg", large)))
    graph = m.graph(y, m.op("Neg", product(m, norm)))
    found = types_of(changed(graph))
    assert found["Add"] == ["float32"]
    assert found["Neg"] == ["float32", HALF]
    assert found["Relu"] == [HALF]
    assert reasons(graph)["Softmax"] == "it reads float32"
    assert reasons(graph)["Add"] == "it reads what may be beyond the range of 16 bits"


def test_bfloat16_has_the_range_of_float32() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    assert types_of(changed(m.graph(m.op("Add", m.op("Exp", x), x)), "bfloat16"))["Add"] == ["float32"]  # inside
    made = changed(m.graph(product(m, m.op("Relu", m.op("Add", m.op("Exp", x), x)))), "bfloat16")
    assert types_of(made)["Relu"] == ["bfloat16"]


def test_before_the_first_product_data_stays_as_it_is() -> None:
    m = Make()
    graph = m.graph(product(m, m.op("Div", m.input(4, 8), m.constant(3.0))))
    assert types_of(changed(graph)) == {"Div": ["float32"], "MatMul": [HALF]}
    assert reasons(graph) == {"Div": "no product or convolution comes before it"}


def test_a_sum_of_narrow_and_wide_operands_is_computed_wide() -> None:
    """The wide operand needs no conversion of its own, which would be a kernel."""
    m = Make()
    x = m.input(4, 8)
    total = m.op("Add", product(m, m.op("Relu", x)), x)
    graph = m.graph(product(m, total))
    made = changed(graph)
    assert types_of(made)["Add"] == ["float32"]
    assert reasons(graph).keys() == {"Relu"}
    final = run_passes(graph, Options(parse_target("cuda"), precision=HALF, verify=True))
    assert [[n.op for n in g.nodes] for g in final.groups] == [
        ["Relu", "Cast"], ["MatMul", "Cast", "Add", "Cast"], ["MatMul", "Cast"],
    ]  # fmt: skip


def test_tables_are_narrow() -> None:
    m = Make()
    indices = m.input(5, dtype="int64")
    made = changed(m.graph(product(m, m.op("Gather", m.weight(9, 8), indices, axis=0))))
    assert types_of(made)["Gather"] == [HALF]


# Constants


def test_constants_that_do_not_fit() -> None:
    large, tiny = np.full(3, 1e6, np.float32), np.full(3, 1e-7, np.float32)
    assert misfit(large, DType.FLOAT16) == (Kept.LARGE, "its constant 1e+06 is beyond the range of float16")
    assert misfit(tiny, DType.FLOAT16) == (Kept.FLOAT32, "its constant 1e-07 is too small for float16")
    assert misfit(tiny, DType.FLOAT16, adds=True) is None
    assert misfit(tiny[:1], DType.FLOAT16, adds=True) is not None
    assert misfit(large, DType.BFLOAT16) is misfit(tiny, DType.BFLOAT16) is None
    assert misfit(np.float32([np.inf, 1]), DType.FLOAT16) is None
    assert misfit(np.float32([1e-7, 1]), DType.FLOAT16) is None  # what matters is the rest
    assert misfit(np.zeros((0, 3), np.float32), DType.FLOAT16) is misfit(np.zeros(3, np.float32), DType.FLOAT16) is None
    lowest = np.array(np.finfo(np.float32).min)
    assert misfit(lowest, DType.BFLOAT16) == (Kept.LARGE, "its constant 3.4e+38 is beyond the range of bfloat16")


def test_a_product_with_tiny_weights_stays_in_float32() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    x = m.op("Add", m.op("MatMul", x, m.constant(m.random.normal(0, 1e-8, (8, 8)))), x)
    graph = m.graph(product(m, x))
    assert types_of(changed(graph))["MatMul"] == [HALF, "float32", HALF]
    assert reasons(graph)["MatMul"].endswith("is too small for float16")


def test_what_keeps_a_divisor_from_being_zero_stays() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    divisor = m.op("Add", m.op("Abs", m.op("Sub", x, x)), m.constant(1e-12))
    graph = m.graph(m.op("Div", m.op("Sub", x, x), divisor))
    assert types_of(changed(graph))["Add"] == ["float32"]


def test_masks_are_cut_to_the_lowest_number_of_16_bits() -> None:
    """A row of which everything is masked is the same everywhere, as in float32, and not NaN."""
    m = Make()
    scores, seen = product(m, m.input(4, 8)), m.constant(np.arange(32).reshape(4, 8) >= 8, "bool")
    mask = m.op("Where", seen, m.constant(0.0), m.constant(np.finfo(np.float32).min))
    chosen = m.op("Where", seen, scores, m.constant(np.finfo(np.float32).min))
    graph = m.graph(*(product(m, m.op("Softmax", x, axis=-1)) for x in (m.op("Add", scores, mask), chosen)))
    made = changed(graph)
    assert types_of(made)["Softmax"] == [HALF] * 2
    assert ops(made)["Clip"] == 2
    assert reasons(graph) == {"Where": "its constant 3.4e+38 is beyond the range of float16"}
    changed(graph, "bfloat16")


def test_what_is_large_is_not_cut() -> None:
    """Which of the large ones is the largest is what a softmax tells."""
    m = Make()
    x = product(m, m.input(4, 8))
    sums = (
        m.op("Add", m.op("Exp", x), x),
        m.op("Mul", x, m.constant(1e6)),
        m.op("Add", x, m.constant([1e6] + [0.0] * 7)),
    )
    graph = m.graph(*(m.op("Softmax", total, axis=-1) for total in sums))
    made = changed(graph)
    assert types_of(made)["Softmax"] == ["float32"] * 3
    assert "Clip" not in ops(made)


def test_a_mask_is_made_of_integers() -> None:
    m = Make()
    seen = m.op("Cast", m.op("Min", m.input(4, 8, dtype="int64"), m.constant(1, "int64")), to=DType.FLOAT32)
    mask = m.op("Mul", m.op("Sub", seen, m.constant(1.0)), m.constant(1e9))
    graph = m.graph(
        m.op("Softmax", m.op("Add", m.op("Mul", product(m, m.input(4, 8)), m.constant(0.5)), mask), axis=-1)
    )
    made = changed(graph)
    assert types_of(made)["Softmax"] == [HALF]
    assert reasons(graph)["Mul"] == "its constant 1e+09 is beyond the range of float16"
    shared = m.graph(*graph.outputs, m.op("Neg", graph.nodes[-2].outputs[0]))
    assert types_of(changed(shared))["Softmax"] == ["float32"]


# Integers


def test_positions_keep_their_digits() -> None:
    m = Make()
    positions = m.op("Cast", m.input(4, 1, dtype="int64"), to=DType.FLOAT32)
    angles = m.op("MatMul", positions, m.constant(m.random.normal(0, 1, (1, 8))))
    turned = m.op("Mul", product(m, m.input(4, 8)), m.op("Cos", m.op("Add", angles, m.constant(4096.0))))
    graph = m.graph(product(m, turned))
    found = types_of(changed(graph))
    assert [found[op] for op in ("MatMul", "Add", "Cos")] == [["float32", HALF, HALF], ["float32"], ["float32"]]
    assert reasons(graph).keys() == {"Cast", "MatMul", "Add", "Cos"}
    assert reasons(graph)["MatMul"] == "it multiplies integers"


def test_sums_of_products_of_integers_are_no_positions() -> None:
    m = Make()
    total = m.op("MatMulInteger", m.input(4, 8, dtype="int8"), m.constant(m.random.integers(-9, 9, (8, 8)), "int8"))
    graph = m.graph(product(m, m.op("Mul", m.op("Cast", total, to=DType.FLOAT32), m.constant(0.01))))
    assert types_of(changed(graph))["MatMul"] == [HALF]


def test_what_makes_no_floats_reads_16_bits() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    graph = m.graph(m.op("ArgMax", x, axis=1, keepdims=False), m.op("Less", x, m.constant(-9.0)))
    made = mixed_precision(graph, Options(precision=HALF))
    verify(made, operators())
    by_op = {n.op: n for n in made.nodes}
    assert made.types[by_op["ArgMax"].inputs[0]].dtype is DType.FLOAT16
    assert made.types[by_op["Less"].inputs[0]].dtype is DType.FLOAT32


# What users say


def test_operators_and_nodes_can_be_kept() -> None:
    m = Make()
    x = m.op("Relu", product(m, m.input(4, 8)))
    graph = m.graph(product(m, m.op("Neg", x)))
    assert types_of(changed(graph, keep_float32=("Relu",)))["Relu"] == ["float32"]
    found = types_of(changed(graph, keep_float32=(graph.nodes[-1].name,)))
    assert found["MatMul"] == [HALF, "float32"]
    assert reasons(graph, keep_float32=("Relu",)) == {"Relu": "it was asked to", "Neg": "it reads float32 alone"}


def test_options_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="precision is 'int8'; give one of float32, float16, bfloat16"):
        Options(precision="int8")
    with pytest.raises(InputError, match="keep_float32 is"):
        Options(precision=HALF, keep_float32=("",))
    keys = {Options(precision=p).precision_key for p in ("float32", "float16", "bfloat16")}
    keys.add(Options(precision=HALF, keep_float32=("Relu",)).precision_key)
    assert len(keys) == 4


# Every operator


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        *(
            (op, {})
            for op in ("Abs", "Ceil", "Elu", "Gelu", "HardSwish", "Mish", "Relu", "Selu", "Sigmoid", "Softsign")
        ),
        *(
            (op, {})
            for op in ("Swish", "Tanh", "Sign", "Floor", "Round", "Trunc", "GlobalAveragePool", "GlobalMaxPool")
        ),
        ("Clip", {"min": -1.0, "max": 1.0}),
        ("Shrink", {"lambd": 0.5, "bias": 0.25}),
        ("ReduceMax", {"axes": (1,), "keepdims": False}),
        ("Resize", {"sizes": (1, 4, 12, 12), "scales": (1.0, 1.0, 1.5, 1.5), "mode": "linear"}),
        ("SpaceToDepth", {"blocksize": 2}),
        ("DepthToSpace", {"blocksize": 2, "mode": "DCR"}),
        ("Tile", {"repeats": (1, 2, 1, 1)}),
        ("Transpose", {"perm": (0, 2, 3, 1)}),
        ("Trilu", {"k": 0, "upper": True}),
        ("LRN", {"size": 3}),
        ("LpNormalization", {"axis": 1, "p": 2}),
        ("MeanVarianceNormalization", {"axes": (0, 2, 3)}),
    ],
)
def test_operators_work_on_16_bits(op: str, attributes: dict[str, Any], precision: str) -> None:
    m = Make()
    x = m.conv(m.input(1, 4, 8, 8), m.constant(m.random.normal(0, 0.2, (4, 4, 3, 3))))
    graph = m.graph(m.op("Neg", m.op(op, x, **attributes)))
    if op in ("Ceil", "Floor", "Round", "Sign", "Trunc"):  # at their steps rounding shows
        made = mixed_precision(graph, Options(precision=precision))
        verify(made, operators())
    else:
        made = changed(graph, precision)
    assert types_of(made) == {"Conv": [precision], op: [precision], "Neg": [precision]}


def test_open_sizes() -> None:
    m = Make()
    x = product(m, m.input(Var("n"), 8))
    graph = m.graph(m.op("Softmax", m.op("Mul", x, m.constant(0.5)), axis=-1), symbols=(Symbol(Var("n")),))
    assert types_of(changed(graph, sizes={"n": 5})) == {"MatMul": [HALF], "Mul": [HALF], "Softmax": [HALF]}


def test_a_models_own_conversions_back_and_forth_are_gone() -> None:
    m = Make()
    x = m.op("Cast", m.input(4, 8, dtype=HALF), to=DType.FLOAT32)
    graph = m.graph(product(m, x))
    assert [n.op for n in changed(graph).nodes] == ["MatMul", "Cast"]


def test_reasons_are_those_after_the_passes_before() -> None:
    m = Make()
    x = product(m, m.input(4, 8))
    graph = m.graph(product(m, m.op("Mul", x, m.op("Sigmoid", x))), m.op("Exp", m.op("Identity", x)))
    (reason,) = explain_precision(graph, Options(precision=HALF))
    assert (reason.node.op, reason.text) == ("Exp", "its results may be beyond the range of float16")
