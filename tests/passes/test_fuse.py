"""Groups: what shares a kernel, what does not, and that groups can always be put in order."""

from __future__ import annotations

import pytest
from graph_builder import Make, check, ops
from hypothesis import given, settings
from hypothesis import strategies as st

from polycomp.graph import Graph, verify
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.passes.fuse import fuse


def _groups(graph: Graph) -> list[str]:
    fused = check(graph, fuse)
    assert ops(fused) == ops(graph)
    return sorted("+".join(n.op for n in g.nodes) for g in fused.groups)


def _product(m: Make, *shape: int) -> str:
    return str(m.op("MatMul", m.input(*shape, 4), m.input(4, 6)))


def test_epilogue() -> None:
    m = Make()
    y = m.op("Relu", m.op("Add", m.op("Add", _product(m, 3), m.weight(6)), m.input(3, 6)))
    assert _groups(m.graph(y)) == ["MatMul+Add+Add+Relu"]


def test_epilogue_ends_where_a_value_is_needed_elsewhere() -> None:
    m = Make()
    y = m.op("Relu", _product(m, 3))
    assert _groups(m.graph(m.op("Exp", y), y)) == ["Exp", "MatMul+Relu"]


def test_epilogue_that_parts_and_meets_again() -> None:
    m = Make()
    y = _product(m, 3)
    assert _groups(m.graph(m.op("Mul", y, m.op("Sigmoid", y)))) == ["MatMul+Sigmoid+Mul"]


def test_epilogue_must_not_broadcast_the_result() -> None:
    m = Make()
    assert _groups(m.graph(m.op("Add", _product(m, 3), m.input(2, 3, 6)))) == ["Add", "MatMul"]


def test_two_products_and_their_sum() -> None:
    m = Make()
    assert _groups(m.graph(m.op("Add", _product(m, 3), _product(m, 3)))) == ["MatMul", "MatMul+Add"]


def test_residual_connection() -> None:
    m = Make()
    x = m.op("Relu", _product(m, 3))
    y = m.op("MatMul", m.op("MatMul", x, m.input(6, 6)), m.input(6, 6))
    assert _groups(m.graph(m.op("Add", x, y))) == ["MatMul", "MatMul+Add", "MatMul+Relu"]


def test_groups_that_would_wait_for_each_other() -> None:
    """Each sum needs both products: taking one epilogue each would be a cycle of groups."""
    m = Make()
    a, b = _product(m, 3), _product(m, 3)
    _groups(m.graph(m.op("Add", a, b), m.op("Sub", a, b)))


def test_softmax_with_its_scale_and_mask() -> None:
    m = Make()
    x = m.op("Add", m.op("Mul", m.input(2, 3, 5), m.constant(0.5)), m.input(1, 1, 5))
    assert _groups(m.graph(m.op("Neg", m.op("Softmax", x, axis=2)))) == ["Mul+Add+Softmax+Neg"]


def test_two_reductions_are_two_kernels() -> None:
    m = Make()
    y = m.op("Softmax", m.op("Softmax", m.input(3, 5), axis=1), axis=1)
    assert _groups(m.graph(y)) == ["Softmax", "Softmax"]


def test_windows_take_no_prologue() -> None:
    m = Make()
    pool = {"kernel_shape": (3, 3), "strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4, "ceil_mode": False}
    assert _groups(m.graph(m.op("MaxPool", m.op("Exp", m.input(1, 2, 5, 5)), **pool))) == ["Exp", "MaxPool"]


def test_elementwise_chain() -> None:
    m = Make()
    x = m.op("Exp", m.input(4, 5))
    assert _groups(m.graph(m.op("Add", m.op("Neg", x), m.op("Abs", x)))) == ["Exp+Neg+Abs+Add"]


def test_views_need_no_kernel() -> None:
    m = Make()
    y = m.op("Exp", m.op("Reshape", m.op("Neg", m.input(2, 6)), shape=(3, 4)))
    assert _groups(m.graph(y)) == ["Exp", "Neg", "Reshape"]


def test_injective_chain() -> None:
    m = Make()
    y = m.op("Add", m.op("Transpose", m.op("Neg", m.input(4, 5)), perm=(1, 0)), m.input(5, 4))
    assert _groups(m.graph(y)) == ["Neg+Transpose+Add"]


def test_expensive_work_is_not_repeated_by_broadcasting() -> None:
    m = Make()
    y = m.op("Add", m.op("Exp", m.input(1, 5)), m.input(4, 5))
    assert _groups(m.graph(y)) == ["Add", "Exp"]


def test_attention_reads_through_its_transposes() -> None:
    m = Make()
    q, k = (m.op("Transpose", m.input(2, 5, 3, 4), perm=p) for p in ((0, 2, 1, 3), (0, 2, 3, 1)))
    y = m.op("Mul", m.op("MatMul", q, k), m.constant(0.5))
    assert _groups(m.graph(y)) == ["Transpose+Transpose+MatMul+Mul"]


def test_a_transpose_read_twice_is_a_kernel() -> None:
    m = Make()
    x = m.op("Transpose", m.input(6, 3), perm=(1, 0))
    y = m.op("MatMul", x, m.input(6, 2))
    assert _groups(m.graph(y, m.op("Softmax", x, axis=1))) == ["MatMul", "Softmax", "Transpose"]


_BINARY = ("Add", "Mul", "Sub")
_UNARY = ("Neg", "Relu", "Exp")


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    """Groups of any graph hold every node once, in an order that can be executed, with one anchor or an attention's."""
    m = Make()
    values = [m.input(4, 4), m.input(4, 4)]
    for _ in range(data.draw(st.integers(1, 14))):
        op = data.draw(st.sampled_from([*_BINARY, *_UNARY, "MatMul", "Softmax", "Transpose", "Reshape"]))
        operands = [data.draw(st.sampled_from(values[-5:])) for _ in range(2 if op in (*_BINARY, "MatMul") else 1)]
        attributes = {"Softmax": {"axis": 1}, "Transpose": {"perm": (1, 0)}, "Reshape": {"shape": (4, 4)}}
        values.append(m.op(op, *operands, **attributes.get(op, {})))
    outputs = data.draw(st.lists(st.sampled_from(values[2:]), min_size=1, max_size=3, unique=True))
    graph = fuse(m.graph(*outputs), Options())
    verify(graph, operators())
    for group in graph.groups:
        anchors = [n for n in group.nodes if n.op in ("MatMul", "Softmax")]
        assert len(anchors) <= 1 or [n.op for n in anchors] == ["MatMul", "Softmax", "MatMul"]
        assert not anchors or group.anchor is anchors[0]


@pytest.mark.parametrize("size", [1, 40])
def test_long_chains(size: int) -> None:
    m = Make()
    x = m.input(8)
    for _ in range(size):
        x = m.op("Neg", x)
    assert len(_groups(m.graph(x))) == (1 if size < 32 else 2)


def _attention(m: Make, axis: int = -1, keys: tuple[int, ...] = (2, 4, 5)) -> tuple[str, str, str]:
    """Scores, weights and the result of an attention, transposed at both ends as heads are."""
    q, k = m.op("Transpose", m.input(3, 2, 4), perm=[1, 0, 2]), m.input(*keys)
    scores = m.op("MatMul", q, k)
    masked = m.op("Add", m.op("Mul", scores, m.constant(0.5)), m.input(3, 5))
    weights = m.op("Softmax", masked, axis=axis)
    return scores, weights, m.op("MatMul", weights, m.input(2, 5, 4))


def test_attention_is_one_group() -> None:
    m = Make()
    result = m.op("Transpose", _attention(m)[2], perm=[1, 0, 2])
    assert _groups(m.graph(result)) == ["Transpose+MatMul+Mul+Add+Softmax+MatMul+Transpose"]


def test_attention_without_scale_or_mask() -> None:
    m = Make()
    weights = m.op("Softmax", m.op("MatMul", m.input(3, 4), m.input(4, 5)), axis=1)
    result = m.op("Relu", m.op("MatMul", weights, m.input(5, 6)))
    assert _groups(m.graph(result)) == ["MatMul+Softmax+MatMul+Relu"]


@pytest.mark.parametrize("needed", [0, 1])
def test_attention_whose_scores_or_weights_are_needed_elsewhere(needed: int) -> None:
    m = Make()
    values = _attention(m)
    groups = _groups(m.graph(values[2], values[needed]))
    assert "Softmax" in groups or "Mul+Add+Softmax" in groups


def test_a_softmax_over_columns_is_no_attention() -> None:
    m = Make()
    assert "Softmax" in _groups(m.graph(_attention(m, axis=1)[2]))


def test_keys_that_are_broadcast_are_no_attention() -> None:
    m = Make()
    assert "Softmax" in _groups(m.graph(_attention(m, keys=(4, 5))[2]))


def test_a_transposition_that_takes_rows_apart_stays_behind_attention() -> None:
    m = Make()
    result = m.op("Transpose", _attention(m)[2], perm=[0, 2, 1])
    assert _groups(m.graph(result)) == ["Transpose", "Transpose+MatMul+Mul+Add+Softmax+MatMul"]


def test_an_attention_to_the_results_of_another_has_a_kernel_of_its_own() -> None:
    m = Make()
    scores = m.op("MatMul", m.input(2, 5, 6), m.input(2, 6, 5))
    inner = m.op("MatMul", m.op("Softmax", scores, axis=-1), m.input(2, 5, 4))
    result = m.op("MatMul", m.op("Softmax", inner, axis=-1), m.input(2, 4, 3))
    assert _groups(m.graph(result)) == ["MatMul", "MatMul+Softmax+MatMul", "Softmax"]


def test_attention_whose_weights_are_zero_where_all_is_masked_is_one_group() -> None:
    m = Make()
    weights = m.op("Softmax", m.op("MatMul", m.input(2, 3, 4), m.input(2, 4, 5)), axis=-1)
    chosen = m.op("Where", m.input(3, 1, dtype="bool"), m.constant(0.0), weights)
    result = m.op("MatMul", chosen, m.input(2, 5, 4))
    assert _groups(m.graph(result)) == ["MatMul+Softmax+Where+MatMul"]
